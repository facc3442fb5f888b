"""The text that a finished model was trained on, found from its folder."""

from __future__ import annotations

from pathlib import Path

from acorn.config import DataConfig
from acorn.config_files import load_run_config
from acorn.data.token_shards import TokenShards
from acorn.errors import UsageError
from acorn.run_folder import run_of
from acorn.tokenizer.tokenizer import Tokenizer


def data_config_of(folder: Path) -> DataConfig:
    """How the run of a model read its text; the defaults for a folder on its own."""
    run = run_of(folder)
    return load_run_config(run.config).data if run else DataConfig()


def shards_of(folder: Path, tokenizer: Tokenizer) -> TokenShards:
    """The token shards of a model's run.

    Raises:
        UsageError: the model stands on its own, so there are none.
        InputError, DamageError: they are not there, belong to another tokenizer, or are damaged.
    """
    run = run_of(folder)
    if run is None:
        raise UsageError(
            f"The model {folder} is not inside a run folder, so it has no splits of its own.",
            where="--split",
            mend="name the text to score with --input FILE",
        )
    shards = load_run_config(run.config).data.shards
    return TokenShards.open(Path(shards) if shards else run.data, tokenizer.fingerprint)
