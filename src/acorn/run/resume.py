"""The config that a run goes on with: what may change, what may not, and which earlier choices stay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from acorn.config import Config
from acorn.config_files import differences, flatten, load_run_config, with_values
from acorn.data.made_from import shards_folder
from acorn.errors import DamageError, UsageError
from acorn.files import sha256_of
from acorn.progress import Progress
from acorn.run.initial_model import with_network
from acorn.run_folder import CONFIG, MANIFEST, RunFolder
from acorn.runtime.device import is_available

MAY_CHANGE = frozenset(
    {
        "name",
        "train.steps",
        "train.minutes",
        "train.eval_every",
        "train.save_every",
        "train.sample_every",
        "train.log_every",
        "checkpoint.keep",
        "report.trackers",
        "train.device",
        "train.threads",
        "parallel.strategy",
    }
)

FIXED = ("data.", "tokenizer.", "model.", "optimizer.name", "train.init")
"""Keys, or beginnings of keys, that no run can change: shards, first weights, shapes and optimizer's state are made."""

STILL_FREE = frozenset({"data.shuffle_group", "model.dropout"})

UNDECIDED: dict[str, object] = {
    "train.device": "auto",
    "train.precision": "auto",
    "train.compile": "auto",
    "train.micro_batch_size": 0,
    "train.threads": 0,
    "parallel.strategy": "auto",
    "model.vocab_size": 0,
}
"""Values that leave a choice open; a run that goes on keeps the choice it made."""


def merge_configs(stored: Config, asked: Config, allow_change: Sequence[str] = ()) -> tuple[Config, dict[str, str]]:
    """The config a run goes on with: as stored, with the changes asked for that do no harm.

    Args:
        stored: the run's resolved config.
        asked: the config of the new command line.
        allow_change: more keys that may change, at the user's risk.

    Returns:
        the config, and what changed: dotted key -> "old -> new".

    Raises:
        UsageError: anything else differs; every difference is listed.
    """
    unknown = [key for key in allow_change if key not in flatten(stored)]
    if unknown:
        raise UsageError(
            f"There is no key {', '.join(unknown)}.", where="--allow-change", mend="name a key of the config"
        )
    fixed = [key for key in allow_change if key.startswith(FIXED) and key not in STILL_FREE]
    if fixed:
        raise UsageError(
            f"A run that goes on cannot change {', '.join(fixed)}: its shards, network and first weights are made.",
            where="--allow-change",
            mend="start another run with --out",
        )
    if stored.train.init_from and asked.train.init_from == stored.train.init_from:
        asked = with_network(asked, stored.model)  # which the command line need not repeat
    asked = with_values(asked, {"train.init": asked.chosen_init})
    kept = {key: flatten(stored)[key] for key, value in UNDECIDED.items() if flatten(asked)[key] == value}
    found = differences(stored, with_values(asked, kept))
    refused = {key: pair for key, pair in found.items() if key not in MAY_CHANGE and key not in allow_change}
    if refused:
        free = [f"--allow-change {key}" for key in refused if not key.startswith(FIXED) or key in STILL_FREE]
        lines = [f"  - {key}: {old!r} in the run, {new!r} now" for key, (old, new) in refused.items()]
        raise UsageError(
            "The run was started with other settings:\n" + "\n".join(lines),
            where="the command line, against config.toml of the run",
            mend="leave them as they were, or start another run with --out"
            + (f", or insist with {' '.join(free)}" if free else ""),
        )
    changed = {key: new for key, (_, new) in found.items() if key != "name"}
    return with_values(stored, changed), {key: f"{found[key][0]} -> {found[key][1]}" for key in changed}


def own_config(run: RunFolder, checkpoint: Path | None, overrides: Sequence[str]) -> Config:
    """The config that the run wrote into its folder; where that file is gone, the one in its checkpoint.

    Before the first checkpoint nothing rests on the choices in it: those that cannot be had here are open again.

    Raises:
        UsageError: there is neither, or an override is wrong.
        DamageError: the file is not what the run wrote.
    """
    if not run.config.exists():
        if checkpoint is None:
            raise UsageError(
                "There is no run to go on with.",
                where=str(run.config),
                mend="name a preset or a TOML file to start one",
            )
        return load_run_config(checkpoint / CONFIG, overrides)
    if checkpoint is not None:
        return load_run_config(run.config, overrides)
    config = load_run_config(run.config, [_open("model.vocab_size"), *overrides])
    if is_available(config.train.device):
        return config
    return load_run_config(run.config, [*map(_open, UNDECIDED), *overrides])


def _open(key: str) -> str:
    """The override that leaves the choice of `key` open."""
    return f"{key}={UNDECIDED[key]}"


def with_known_shards(config: Config, stored: Config, run: RunFolder) -> Config:
    """`config` of a command line, in which `data.shards` may name the run's own from elsewhere, or others by its name.

    The former becomes the run's own spelling, the latter an absolute path.
    """
    if not (config.data.shards and stored.data.shards):
        return config
    asked, own = Path(config.data.shards), shards_folder(run, stored.data.shards)
    if not (os.path.isfile(asked / MANIFEST) and os.path.isfile(own / MANIFEST)):
        return config
    same = os.path.samefile(asked, own) or sha256_of(asked / MANIFEST) == sha256_of(own / MANIFEST)
    shards = stored.data.shards if same else os.path.abspath(asked)
    return config.model_copy(
        update={"data": config.data.model_copy(update={"shards": shards})}
    )  # not as if all was set


def with_earlier_choices(config: Config, run: RunFolder, progress: Progress) -> Config:
    """`config` with what an earlier start of this run, killed before its first checkpoint, chose for the machine."""
    try:
        merged = merge_configs(load_run_config(run.config), config)[0]
    except (DamageError, UsageError):  # there was none, or it was another run
        return config
    if not is_available(merged.train.device):
        progress.note(
            f"An earlier start of this run chose {merged.train.device}, which is unavailable here. There is no "
            "checkpoint yet, so device and precision are chosen again."
        )
        return config
    return with_values(merged, {"model.vocab_size": config.model.vocab_size})  # the text may be another one by now
