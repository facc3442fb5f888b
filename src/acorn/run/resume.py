"""What a run resumes with: what may change, what may not, which choices stay, and what ends bit-identical runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acorn.checkpoint.training_state import Checkpoint, Counters
from acorn.config import Config
from acorn.config_files import differences, flatten, load_run_config, override_of, with_values
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
            f"There is no key {', '.join(unknown)}.", where="--allow-change", fix="name a key of the config"
        )
    fixed = [key for key in allow_change if key.startswith(FIXED) and key not in STILL_FREE]
    if fixed:
        raise UsageError(
            f"A run that goes on cannot change {', '.join(fixed)}: its shards, network and first weights are made.",
            where="--allow-change",
            fix="start another run with --out",
        )
    if stored.train.init_from and asked.train.init_from == stored.train.init_from:
        asked = with_network(asked, stored.model)  # which the command line need not repeat
    asked = with_values(asked, {"train.init": asked.chosen_init})
    found = differences(stored, with_choices_of(stored, asked))
    refused = {key: pair for key, pair in found.items() if key not in MAY_CHANGE and key not in allow_change}
    if refused:
        free = [f"--allow-change {key}" for key in refused if not key.startswith(FIXED) or key in STILL_FREE]
        lines = [f"  - {key}: {old!r} in the run, {new!r} now" for key, (old, new) in refused.items()]
        raise UsageError(
            "The run was started with other settings:\n" + "\n".join(lines),
            where="the command line, against config.toml of the run",
            fix="leave them as they were, or start another run with --out"
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
                fix="name a preset or a TOML file to start one",
            )
        return load_run_config(checkpoint / CONFIG, overrides)
    if checkpoint is not None:
        return load_run_config(run.config, overrides)
    config = load_run_config(run.config, [*open_again("model.vocab_size"), *overrides])
    if is_available(config.train.device):
        return config
    return load_run_config(run.config, [*open_again(), *overrides])


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


def check_steps_left(config: Config, counters: Counters) -> None:
    """Refuses a length that the run has passed already.

    Raises:
        UsageError: `train.steps` is below the step of the checkpoint.
    """
    if 0 < config.train.steps < counters.step:
        raise UsageError(
            f"The run is at step {counters.step:,} already; {config.train.steps:,} steps are behind it.",
            where="train.steps",
            fix="name more steps, or leave train.steps out",
        )


def resumed_with(stored: Config, config: Config) -> list[str]:
    """The words of a command line that resumes a run of `stored` with `config`."""
    words = []
    for key, (_, new) in differences(stored, config).items():
        words += [override_of(key, new), *([] if key in MAY_CHANGE else ["--allow-change", key])]
    return words


def note_changes(changed: dict[str, str], counters: Counters, progress: Progress) -> None:
    """Says what a run resumes with that it did not start with: what `merge_configs` found changed."""
    for key, change in changed.items():
        progress.note(f"changed on resume: {key}: {change}")
        if key not in MAY_CHANGE:
            progress.note(f"No longer bit-equal to an undisturbed run: {key} was changed.")
            counters.undisturbed = False


def note_inequality(
    config: Config, checkpoint: Checkpoint | None, environment: dict[str, Any], counters: Counters, progress: Progress
) -> None:
    """Says what keeps the run from being bit-equal to an undisturbed one, if anything does."""
    if config.train.minutes:
        progress.note("The schedule follows the clock: this run does not repeat bit for bit. train.steps would.")
    if checkpoint is None:
        return
    train = config.train
    progress.note(
        f"Going on from step {counters.step:,} ({checkpoint.path}) as the run was started: device {train.device}, "
        f"precision {train.precision}, compile {'on' if train.compile else 'off'}, threads {train.threads}."
    )
    for change in changed_since(checkpoint.resolved, environment):
        progress.note(f"No longer bit-equal to an undisturbed run: {change}.")
        counters.undisturbed = False
    if config.train.steps != counters.schedule_steps and config.schedule.name != "constant":
        old, new = (_factor_at(config, counters, steps) for steps in (counters.schedule_steps, config.train.steps))
        progress.note(
            f"The schedule is computed for {config.train.steps:,} steps from now on: at step {counters.step:,} the "
            f"rate goes from {old:.3f} to {new:.3f} of its peak. The run is no longer equal to an undisturbed one."
        )
        counters.undisturbed = False
    counters.schedule_steps = config.train.steps


def _factor_at(config: Config, counters: Counters, steps: int) -> float:
    """Share of the peak rate where the run stands, in a run of `steps` steps (0: by the clock)."""
    if steps:
        return rate_factor(config.schedule, min(1.0, counters.step / steps), 1 / steps)
    return rate_factor(config.schedule, min(1.0, counters.seconds / (60 * config.train.minutes or 1)), 0.0)
