"""Saving a run's state: on schedule, again a little later where the disk fails, and going back to what was saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acorn.checkpoint.integrity import checkpoint_faults, newest_whole_checkpoint
from acorn.checkpoint.rotation import remove_checkpoints, rotate_checkpoints
from acorn.checkpoint.training_state import Counters, read_checkpoint, restore, save_checkpoint
from acorn.config import Config
from acorn.errors import AcornError, DamageError, ResourceError
from acorn.files import disk_errors, read_sealed_json, write_sealed_json
from acorn.folders import readable
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.report.metrics_log import JsonLines
from acorn.run_folder import RunFolder, step_of
from acorn.train.optimizer import Optimizer
from acorn.train.step import initial_counters

RETRY_STEPS = (1, 2, 4)
"""Steps after which a save that failed is tried again; a full disk may be cleared meanwhile."""


@dataclass
class Saver:
    """Writes the checkpoints of one sitting.

    Attributes:
        resolved: what the machine's `auto` settings came to.
        note: hears of saves that failed.
    """

    run: RunFolder
    config: Config
    tokenizer_json: str
    model: GPT
    optimizers: list[Optimizer]
    resolved: dict[str, Any]
    metrics: JsonLines
    samples: JsonLines
    note: Callable[[str], None]
    failures: int = 0
    retry_at: int | None = None

    def has_to_retry(self, step: int) -> bool:
        return self.retry_at is not None and step >= self.retry_at

    def save(self, counters: Counters, *, scheduled: bool, can_wait: bool) -> bool:
        """Writes the checkpoint of this step, then removes those that are no longer to be kept.

        Args:
            scheduled: an undisturbed run would save here too.
            can_wait: a failure is only noted, and the save is due again some steps later; the fourth in a row counts.

        Returns:
            whether it was written.

        Raises:
            ResourceError: the disk is full or cannot be written. The last checkpoint stands.
        """
        counters.scheduled = scheduled
        try:
            self._write(counters)
        except ResourceError as error:
            if not can_wait or self.failures == len(RETRY_STEPS):
                tries = f" in {self.failures + 1} tries" if self.failures else ""
                raise ResourceError(
                    f"The checkpoint of step {counters.step:,} could not be saved{tries}; {standing(self.run)}. "
                    + error.what,
                    where=error.where,
                    mend=f"{error.mend}; then go on with: acorn pretrain --resume --out {self.run.root}",
                ) from error
            wait = RETRY_STEPS[self.failures]
            self.failures += 1
            self.retry_at = counters.step + wait
            self.note(
                f"The checkpoint of step {counters.step:,} could not be saved: {error.what} "
                f"Trying again at step {self.retry_at:,}; {standing(self.run)}."
            )
            return False
        self.failures, self.retry_at = 0, None
        tidy(self.run, self.config, counters, self.note)
        return True

    def _write(self, counters: Counters) -> None:
        self.metrics.sync()
        self.samples.sync()
        counters.metrics_bytes, counters.samples_bytes = self.metrics.length, self.samples.length
        path = self.run.checkpoint(counters.step)
        save_checkpoint(path, self.config, self.tokenizer_json, self.model, self.optimizers, counters, self.resolved)


def standing(run: RunFolder) -> str:
    """What a message says is left: the newest checkpoint under its name, if there is any."""
    steps = run.checkpoint_steps()
    return f"the checkpoint of step {steps[-1]:,} still stands" if steps else "there is no other checkpoint yet"


def tidy(run: RunFolder, config: Config, counters: Counters, note: Callable[[str], None]) -> None:
    """Names the best checkpoint and removes those no longer kept.

    Called after each save, and again when a run goes on: a kill in between leaves it undone. A disk that refuses is
    noted and no more, for the checkpoint itself stands.
    """
    try:
        best = {"step": counters.best_step, "loss": counters.best_loss}
        if counters.best_step is None or not readable(run.checkpoint(counters.best_step)).is_dir():
            with disk_errors(run.best):
                run.best.unlink(missing_ok=True)  # after going back past damage, the best one may be gone
        elif not _holds(run.best, best):
            write_sealed_json(run.best, best)
        also = {counters.best_step, last_on_schedule(config, counters.step, counters.best_step)}
        rotate_checkpoints(run, counters.step, keep=config.checkpoint.keep, also=also)
    except ResourceError as error:
        note(f"Older checkpoints could not be removed, or {run.best.name} not written: {error.what} ({error.where})")


def weights_are_finite(model: GPT) -> bool:
    """Whether every parameter is. An update can overflow though its gradient was finite. One wait for the device."""
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in model.parameters()]).all())


def go_back(
    run: RunFolder,
    config: Config,
    model: GPT,
    optimizers: list[Optimizer],
    counters: Counters,
    begin: Callable[[], None],
    progress: Progress,
) -> Counters:
    """Puts model and optimizers back to where an undisturbed run would go from here, and gives the counters of there.

    That is the last checkpoint saved on schedule, and before the first one the beginning; where it is gone, the newest.
    One that a signal put in between is passed over, and removed, so that a stop does not change where the run goes.

    Where the beginning is a model that is gone by now, the newest checkpoint has to do.

    Args:
        begin: gives the model the weights that the run began with.

    Raises:
        DamageError: there are checkpoints, and none is whole.
        AcornError: as `begin`, where there is no checkpoint either.
    """
    step = last_on_schedule(config, counters.step - 1, counters.best_step)
    path = readable(run.checkpoint(step))
    expected = not step or (path.is_dir() and not checkpoint_faults(path))
    if not expected:
        path, step = _newest(run, progress) or (path, 0)
    if not step:
        try:
            begin()
        except AcornError:
            newest = _newest(run, progress)
            if newest is None:
                raise
            (path, step), expected = newest, False
    remove_checkpoints(run, [newer for newer in run.checkpoint_steps() if newer > step])
    if not step:
        for optimizer in optimizers:
            optimizer.state.clear()
        found = initial_counters(config.train.steps, config.train.precision)
    else:
        checkpoint = read_checkpoint(path)
        restore(model, optimizers, checkpoint)
        found = checkpoint.counters
    found.schedule_steps = counters.schedule_steps
    found.undisturbed = found.undisturbed and counters.undisturbed and expected
    return found


def _newest(run: RunFolder, progress: Progress) -> tuple[Path, int] | None:
    """The newest whole checkpoint and its step."""
    newest = newest_whole_checkpoint(run, progress)
    step = step_of(newest.name, exact=False) if newest else None
    return (newest, step) if newest and step is not None else None


def last_on_schedule(config: Config, step: int, best_step: int | None) -> int:
    """The newest step up to `step` that a run saves by itself: by the interval, or as the best one. 0: none."""
    every = config.train.save_every
    return max(step // every * every if every else 0, best_step or 0)


def _holds(path: Path, value: dict[str, Any]) -> bool:
    try:
        return read_sealed_json(path) == value
    except DamageError:
        return False
