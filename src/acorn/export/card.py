"""README.md of an export: the model card that is there already, or one from what the model's run knows."""

from __future__ import annotations

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_card import facts_of_run, write_card
from acorn.checkpoint.model_folder import CARD
from acorn.config_files import load_run_config
from acorn.evaluate.run_data import run_of, shards_of
from acorn.files import read_sealed_json

UNKNOWN = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- acorn
---

# {name}

A language model, exported with acorn from a folder that had no model card. What text it was trained on, and under which
licence that text stands, is not known here.
"""


def card_of(loaded: LoadedModel) -> str:
    """The text of README.md. Where the training text came from, and its licence, go along with every export.

    Raises:
        InputError, DamageError: a checkpoint's run has lost its shards or figures.
    """
    card, run = loaded.folder / CARD, run_of(loaded.folder)
    if card.is_file():
        return card.read_bytes().decode("utf-8", "replace")
    if run is None or loaded.step is None:
        return UNKNOWN.format(name=name_of(loaded))
    config = load_run_config(run.config)
    count = shards_of(loaded.folder, loaded.tokenizer).count("train")
    figures = read_sealed_json(run.evaluation) if run.evaluation.exists() else {}
    same = figures.get("weights_of_step") == loaded.step
    evaluations = [figures[split] for split in ("valid", "test") if same and split in figures]
    return write_card(facts_of_run(config, loaded.config, loaded.tokenizer, count, loaded.step, evaluations))


def name_of(loaded: LoadedModel) -> str:
    """What to call the model: the run's name, else the folder's."""
    run = run_of(loaded.folder)
    return load_run_config(run.config).name if run else loaded.folder.resolve().name
