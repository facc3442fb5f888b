"""README.md of an export: the existing model card, or one written from the facts of the model's run."""

from __future__ import annotations

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.card_parts import with_provenance
from acorn.checkpoint.hub import repository_of
from acorn.checkpoint.load import GIVEN, LoadedModel
from acorn.checkpoint.model_card import facts_of_run, write_card
from acorn.checkpoint.model_folder import CARD
from acorn.checkpoint.task_card import PIPELINES
from acorn.checkpoint.training_state import read_counters
from acorn.config_files import load_run_config
from acorn.evaluate.run_data import shards_of
from acorn.export.finetuned_card import finetuned_card
from acorn.files import read_json, read_sealed_json
from acorn.report.rise import rise_of
from acorn.report.task_figures import LOSS_UNITS, TEXT_LOSS_UNIT
from acorn.run_folder import run_of

CARD_OF_UNKNOWN_RUN = """\
---
library_name: transformers
pipeline_tag: {pipeline}
tags:
- acorn
{base_model}---

# {name}

{kind} that acorn exported from {origin} without a model card. {text}
"""
UNKNOWN_TEXT = """Its training text and the
license of that text are unknown."""


def card_of(loaded: LoadedModel) -> str:
    """The text of README.md. Every export tells the origin of its weights and training text.

    Raises:
        InputError, DamageError: the shards or figures of a checkpoint's run are missing or damaged.
    """
    card, run = loaded.folder / CARD, run_of(loaded.folder)
    repository, revision = repository_of(loaded.folder)
    if card.is_file():
        text = card.read_bytes().decode("utf-8", "replace")
        # A published card does not contain the address of its own repository.
        return with_provenance(text, "", bases_of(loaded)) if repository else text
    if run is None or loaded.step is None:
        own, *earlier = bases_of(loaded)
        head = loaded.model.head_spec
        text = CARD_OF_UNKNOWN_RUN.format(
            name=name_of(loaded),
            pipeline="text-generation" if head is None else PIPELINES[head.kind],
            kind="A language model" if head is None else f"A model that gives {GIVEN[head.kind]}",
            base_model=f"base_model: {repository}\n" if repository else "",
            origin=f"`{repository}` on the Hugging Face Hub (revision {revision})" if repository else "a folder",
            text=f"It was trained on {own.text}." if own.text else UNKNOWN_TEXT,
        )
        return with_provenance(text, own.text, [own, *earlier] if repository else earlier)
    config = load_run_config(run.config)
    figures = read_sealed_json(run.evaluation) if run.evaluation.exists() else {}
    same = figures.get("weights_of_step") == loaded.step
    scored = [split for split in ("valid", "test") if same and split in figures]
    bases = bases_of(loaded)[1:]
    counters = read_counters(loaded.folder)
    rise = rise_of(counters.best_step, counters.best_loss, counters.valid_step, counters.valid_loss)
    limits = [rise.limit(LOSS_UNITS.get(config.finetune.task, TEXT_LOSS_UNIT))] if rise else []
    if not config.trains_on_text:
        return finetuned_card(
            config,
            loaded.tokenizer.kind,
            loaded.model.head_spec,
            () if loaded.task == "regress" else loaded.labels,
            examples=sum(read_json(run.environment)["examples_per_rank"].values()),
            steps=loaded.step,
            bases=bases,
            evaluations=[{**figures[split], "split": split} for split in scored],
            limits=limits,
        )
    shards = shards_of(loaded.folder, loaded.tokenizer)
    return write_card(
        facts_of_run(
            config,
            loaded.config,
            loaded.tokenizer,
            shards.count("train"),
            loaded.step,
            [figures[split] for split in scored],
            bases,
            limits,
            clean=shards.clean,
        )
    )


def name_of(loaded: LoadedModel) -> str:
    """The model's name: that of the run, otherwise of the repository or the folder."""
    run = run_of(loaded.folder)
    if run:
        return load_run_config(run.config).name
    return repository_of(loaded.folder)[0].rpartition("/")[2] or loaded.folder.resolve().name
