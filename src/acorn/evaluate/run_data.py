"""Finds the training text of a model from its folder."""

from __future__ import annotations

from pathlib import Path

from acorn.config import DataConfig
from acorn.config_files import load_run_config
from acorn.data.made_from import prepared_shards, read_made_from, shards_folder
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError, UsageError
from acorn.run_folder import MANIFEST, run_of
from acorn.tokenizer.tokenizer import Tokenizer


def data_config_of(folder: Path) -> DataConfig:
    """The data settings of a model's run; the defaults for a folder outside a run."""
    run = run_of(folder)
    return load_run_config(run.config).data if run else DataConfig()


def shards_of(folder: Path, tokenizer: Tokenizer) -> TokenShards:
    """The token shards of a model's run.

    Raises:
        UsageError: the model is not inside a run, so there are none.
        InputError, DamageError: they are missing, damaged, belong to another tokenizer, or are not those that the run
            was started with.
    """
    run = run_of(folder)
    if run is None:
        raise UsageError(
            f"The model {folder} is not inside a run folder, so it has no splits of its own.",
            where="--split",
            fix="name the text to score with --input FILE",
        )
    task = load_run_config(run.config).finetune.task
    if task:
        raise UsageError(
            f"The run was finetuned on examples ({task}), so it has no splits of text.",
            where="--split",
            fix=f"its figures are in {run.evaluation}; name a text to score with --input FILE",
        )
    shards = TokenShards.open(shards_folder(run, load_run_config(run.config).data.shards), tokenizer.fingerprint)
    known = read_made_from(run)
    if known and known.shards and prepared_shards(run, shards.folder).manifest != known.shards.manifest:
        raise DamageError(
            f"The token shards are not those that the run was started with: the SHA-256 of their {MANIFEST} was "
            f"{known.shards.manifest}.",
            where=str(shards.folder / MANIFEST),
            fix="put the original shards back, or name the text to score with --input FILE",
        )
    return shards
