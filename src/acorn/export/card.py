"""README.md of an export: the model card that is there already, or one from what the model's run knows."""

from __future__ import annotations

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.hub import repository_of
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_card import facts_of_run, with_provenance, write_card
from acorn.checkpoint.model_folder import CARD
from acorn.checkpoint.training_state import read_counters
from acorn.config_files import load_run_config
from acorn.evaluate.run_data import shards_of
from acorn.files import read_sealed_json
from acorn.report.rise import rise_of
from acorn.run_folder import run_of

UNKNOWN = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- acorn
{base_model}---

# {name}

A language model, exported with acorn from {origin} that had no model card. {text}
"""
NO_TEXT = """What text it was trained on, and under which
license that text may be used, is not known here."""


def card_of(loaded: LoadedModel) -> str:
    """The text of README.md. Where the weights and the training text came from goes along with every export.

    Raises:
        InputError, DamageError: a checkpoint's run has lost its shards or figures.
    """
    card, run = loaded.folder / CARD, run_of(loaded.folder)
    repository, revision = repository_of(loaded.folder)
    if card.is_file():
        text = card.read_bytes().decode("utf-8", "replace")
        # The card that was published does not say where: its own address.
        return with_provenance(text, "", bases_of(loaded)) if repository else text
    if run is None or loaded.step is None:
        own, *earlier = bases_of(loaded)
        text = UNKNOWN.format(
            name=name_of(loaded),
            base_model=f"base_model: {repository}\n" if repository else "",
            origin=f"`{repository}` of the Hugging Face Hub (revision {revision})" if repository else "a folder",
            text=f"It was trained on {own.text}." if own.text else NO_TEXT,
        )
        return with_provenance(text, own.text, [own, *earlier] if repository else earlier)
    config = load_run_config(run.config)
    shards = shards_of(loaded.folder, loaded.tokenizer)
    figures = read_sealed_json(run.evaluation) if run.evaluation.exists() else {}
    same = figures.get("weights_of_step") == loaded.step
    evaluations = [figures[split] for split in ("valid", "test") if same and split in figures]
    bases = bases_of(loaded)[1:]
    counters = read_counters(loaded.folder)
    rise = rise_of(counters.best_step, counters.best_loss, counters.valid_step, counters.valid_loss)
    limits = [rise.limit] if rise else []
    return write_card(
        facts_of_run(
            config,
            loaded.config,
            loaded.tokenizer,
            shards.count("train"),
            loaded.step,
            evaluations,
            bases,
            limits,
            clean=shards.clean,
        )
    )


def name_of(loaded: LoadedModel) -> str:
    """What to call the model: the run's name, else the repository's or the folder's."""
    run = run_of(loaded.folder)
    if run:
        return load_run_config(run.config).name
    return repository_of(loaded.folder)[0].rpartition("/")[2] or loaded.folder.resolve().name
