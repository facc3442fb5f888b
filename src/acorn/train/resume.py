"""What may change when a run goes on, and what may not."""

from __future__ import annotations

from collections.abc import Sequence

from acorn.config import Config
from acorn.config_files import differences, flatten, with_values
from acorn.errors import UsageError
from acorn.train.initial_model import with_network

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
