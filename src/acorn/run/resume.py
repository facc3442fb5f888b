"""Resuming a run: which settings may change, which choices are kept, and when the run is no longer bit-identical."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acorn.checkpoint.training_state import Checkpoint, Counters
from acorn.config import Config
from acorn.config_files import LENGTHS, differences, flatten, load_run_config, override_of, to_toml_value, with_values
from acorn.counting import counted
from acorn.data.made_from import shards_folder
from acorn.errors import DamageError, UsageError
from acorn.files import sha256_of
from acorn.progress import Progress
from acorn.run.environment import changed_since
from acorn.run.initial_model import with_network
from acorn.run.resolve import open_again, with_choices_of
from acorn.run_folder import CONFIG, MANIFEST, RunFolder
from acorn.runtime.device import is_available
from acorn.train.schedule import rate_factor

MAY_CHANGE = frozenset(
    {
        "name",
        "train.steps",
        "train.minutes",
        "finetune.epochs",
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

FIXED_PREFIXES = ("data.", "tokenizer.", "model.", "optimizer.name", "train.init", "finetune.", "lora.")
"""Keys that start so cannot be changed: data, initial weights, shapes and optimizer state already exist."""

NOT_FIXED = frozenset({"data.shuffle_group", "model.dropout", "finetune.epochs"})
"""Exceptions from FIXED_PREFIXES: `--allow-change` may change them."""


def merge_configs(stored: Config, asked: Config, allow_change: Sequence[str] = ()) -> tuple[Config, dict[str, str]]:
    """The config that a run resumes with: the stored one, with the requested changes if they are allowed.

    Args:
        stored: the run's resolved config.
        asked: the config of the new command line.
        allow_change: further keys that may change, at the user's risk.

    Returns:
        the config, and the changes: dotted key -> "old -> new".

    Raises:
        UsageError: other settings differ; every difference is listed.
    """
    unknown = [key for key in allow_change if key not in flatten(stored)]
    if unknown:
        raise UsageError(
            f"There is no setting {', '.join(unknown)}.", where="--allow-change", fix="name a setting of the config"
        )
    fixed = [key for key in allow_change if key.startswith(FIXED_PREFIXES) and key not in NOT_FIXED]
    if fixed:
        raise UsageError(
            f"A resumed run cannot change {', '.join(fixed)}: its data, network and initial weights already exist.",
            where="--allow-change",
            fix="start a new run with --out",
        )
    if stored.train.init_from and asked.train.init_from == stored.train.init_from:
        asked = with_network(asked, stored.model)  # the command line need not repeat the model settings
    asked = with_values(asked, {"train.init": asked.chosen_init})
    found = differences(stored, with_choices_of(stored, asked))
    refused = {key: pair for key, pair in found.items() if key not in MAY_CHANGE and key not in allow_change}
    if refused:
        free = [f"--allow-change {key}" for key in refused if not key.startswith(FIXED_PREFIXES) or key in NOT_FIXED]
        lines = [
            f"  - {key}: {to_toml_value(old)} in the run, {to_toml_value(new)} now"
            for key, (old, new) in refused.items()
        ]
        raise UsageError(
            "The run was started with different settings:\n" + "\n".join(lines),
            where="the settings given, compared with those in the run's config.toml",
            fix="use the run's settings, or start a new run with --out"
            + (f", or change them anyway with {' '.join(free)}" if free else ""),
        )
    changed = {key: new for key, (_, new) in found.items() if key != "name"}
    told = {key: " -> ".join(map(to_toml_value, found[key])) for key in changed if not _follows(key, asked)}
    return with_values(stored, changed), told


def _follows(key: str, config: Config) -> bool:
    """Whether another length of `config` decides that of `key`, which nobody set."""
    if key not in LENGTHS:
        return False
    return not flatten(config)[key] or (key == "train.steps" and config.finetune.epochs > 0)


def own_config(run: RunFolder, checkpoint: Path | None, overrides: Sequence[str]) -> Config:
    """The config in the run's folder; if that file is missing, the one in its checkpoint.

    Before the first checkpoint, nothing depends on the choices for the machine. If they are unavailable here, they are
    made again.

    Raises:
        UsageError: there is neither file, or an override is wrong.
        DamageError: the file is not what the run wrote.
    """
    if not run.config.exists():
        if checkpoint is None:
            raise UsageError(
                "There is no run to resume.",
                where=str(run.config),
                fix="give a preset or a TOML file to start a run, or, to finetune, a model and rows",
            )
        return load_run_config(checkpoint / CONFIG, overrides)
    if checkpoint is not None:
        return load_run_config(run.config, overrides)
    config = load_run_config(run.config, [*open_again("model.vocab_size"), *overrides])
    if is_available(config.train.device):
        return config
    return load_run_config(run.config, [*open_again(), *overrides])


def with_known_shards(config: Config, stored: Config, run: RunFolder) -> Config:
    """`config` of a command line, with `data.shards` as the run stores it if both name the same shards.

    A relative path depends on the current folder, so shards are compared by content. The path of other shards becomes
    absolute.
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
    )  # a new DataConfig would mark all its fields as set


def with_earlier_choices(config: Config, run: RunFolder, progress: Progress) -> Config:
    """`config` with the choices for the machine of an earlier start that was killed before its first checkpoint."""
    try:
        merged = merge_configs(load_run_config(run.config), config)[0]
    except (DamageError, UsageError):  # there was none, or its settings were different
        return config
    if not is_available(merged.train.device):
        progress.note(
            f"An earlier start of this run chose {merged.train.device}, which is unavailable here. As there is no "
            "checkpoint yet, device and precision are chosen again."
        )
        return config
    return with_values(merged, {"model.vocab_size": config.model.vocab_size})  # the text may have changed


def check_length_left(config: Config, stored: Config, counters: Counters) -> None:
    """Refuses a new length that the run has already passed.

    Args:
        stored: the run's config before this command.

    Raises:
        UsageError: `train.steps` is below the step of the checkpoint, or `train.minutes` below its training time.
    """
    minutes, done = config.train.minutes, counters.seconds / 60
    if 0 < minutes < done and minutes != stored.train.minutes:  # the last step of a run ends a little after its time
        raise UsageError(
            f"train.minutes={minutes:g} is below the training time so far: the run has trained for {done:.3g} minutes.",
            where="train.minutes (acorn demo: --minutes)",
            fix="give more minutes, or leave them out",
        )
    if 0 < config.train.steps < counters.step:
        raise UsageError(
            f"train.steps={config.train.steps:,} is below the current step: the run is at step {counters.step:,}.",
            where="train.steps",
            fix="set train.steps higher, or leave it out",
        )


def resumed_with(stored: Config, config: Config) -> list[str]:
    """The arguments of a command that resumes a run with the config `stored` as `config`."""
    words: list[str] = []
    for key, (_, new) in differences(stored, config).items():
        if _follows(key, config):
            continue
        words += [override_of(key, new), *([] if key in MAY_CHANGE else ["--allow-change", key])]
    return words


def note_changes(changed: dict[str, str], counters: Counters, progress: Progress) -> None:
    """Notes the changes that `merge_configs` found, and those after which the run is no longer bit-identical."""
    for key, change in changed.items():
        progress.note(f"Changed on resume: {key}: {change}")
        if key not in MAY_CHANGE:
            progress.note(f"No longer bit-identical to an uninterrupted run: {key} was changed.")
            counters.undisturbed = False


def note_inequality(
    config: Config, checkpoint: Checkpoint | None, environment: dict[str, Any], counters: Counters, progress: Progress
) -> None:
    """Notes why the run is not bit-identical to an uninterrupted one, if it is not."""
    if config.train.minutes:
        progress.note(
            "The schedule follows the clock, so this run is not reproducible bit for bit. Runs with train.steps are."
        )
    if checkpoint is None:
        return
    train = config.train
    progress.note(
        f"Resuming from step {counters.step:,} ({checkpoint.path}) as the run was started: device {train.device}, "
        f"precision {train.precision}, compile {'on' if train.compile else 'off'}, threads {train.threads}."
    )
    for change in changed_since(checkpoint.resolved, environment):
        progress.note(f"No longer bit-identical to an uninterrupted run: {change}.")
        counters.undisturbed = False
    if config.train.steps != counters.schedule_steps and config.schedule.name != "constant":
        old, new = (_factor_at(config, counters, steps) for steps in (counters.schedule_steps, config.train.steps))
        progress.note(
            f"The schedule is now computed for {counted(config.train.steps, 'step')}: at step {counters.step:,} the "
            f"learning rate changes from {old:.3f} to {new:.3f} of its peak. "
            "No longer bit-identical to an uninterrupted run."
        )
        counters.undisturbed = False
    counters.schedule_steps = config.train.steps


def _factor_at(config: Config, counters: Counters, steps: int) -> float:
    """Learning rate at the current step as a share of its peak, in a run of `steps` steps (0: by the clock)."""
    if steps:
        return rate_factor(config.schedule, min(1.0, counters.step / steps), 1 / steps)
    return rate_factor(config.schedule, min(1.0, counters.seconds / (60 * config.train.minutes or 1)), 0.0)
