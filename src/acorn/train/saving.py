"""Saving checkpoints: on schedule, and again after a few steps if the disk fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acorn.checkpoint.rotation import rotate_checkpoints
from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config
from acorn.errors import DamageError, ResourceError
from acorn.files import disk_errors, read_sealed_json, write_sealed_json
from acorn.folders import readable
from acorn.run_folder import RunFolder
from acorn.train.logs import Logs
from acorn.train.network import Network
from acorn.train.setup import Setup

RETRY_STEPS = (1, 2, 4)
"""Steps after which a failed save is retried; meanwhile a user may free disk space."""


@dataclass
class Saver:
    """Writes the checkpoints of a run.

    Attributes:
        logs: are flushed before each save, and get notes of failed saves.
    """

    setup: Setup
    network: Network
    tokenizer_json: str
    logs: Logs
    failures: int = 0
    retry_at: int | None = None

    def has_to_retry(self, step: int) -> bool:
        return self.retry_at is not None and step >= self.retry_at

    def forget_failures(self) -> None:
        """Cancels retries; for a run that rolled back, which no longer needs the failed save."""
        self.failures, self.retry_at = 0, None

    def save(self, counters: Counters, *, scheduled: bool, can_wait: bool) -> bool:
        """Writes the checkpoint of this step, then removes those that need not be kept.

        Args:
            scheduled: whether an uninterrupted run would save here too.
            can_wait: whether a failure is only reported and retried some steps later; the fourth in a row is an error.

        Returns:
            whether it was written.

        Raises:
            ResourceError: the disk is full or cannot be written. The last checkpoint is intact.
        """
        run, counters.scheduled = self.setup.run, scheduled
        try:
            self._write(counters)
        except ResourceError as error:
            if not can_wait or self.failures == len(RETRY_STEPS):
                tries = f" in {self.failures + 1} tries" if self.failures else ""
                raise ResourceError(
                    f"The checkpoint of step {counters.step:,} could not be saved{tries}; {last_checkpoint(run)}. "
                    + error.what,
                    where=error.where,
                    fix=f"{error.fix}; then resume with: {self.setup.command}",
                ) from error
            wait = RETRY_STEPS[self.failures]
            self.failures += 1
            self.retry_at = counters.step + wait
            self.logs.note(
                f"The checkpoint of step {counters.step:,} could not be saved: {error.what} "
                f"Retrying at step {self.retry_at:,}; {last_checkpoint(run)}."
            )
            return False
        self.forget_failures()
        tidy(run, self.setup.config, counters, self.logs.note)
        return True

    def _write(self, counters: Counters) -> None:
        self.logs.sync(counters)
        save_checkpoint(
            self.setup.run.checkpoint(counters.step),
            self.setup.config,
            self.tokenizer_json,
            self.network.model,
            self.network.optimizers,
            counters,
            self.setup.resolved,
        )


def last_checkpoint(run: RunFolder) -> str:
    """Part of a message: the newest checkpoint that exists, if any."""
    steps = run.checkpoint_steps()
    return f"the checkpoint of step {steps[-1]:,} is intact" if steps else "there is no other checkpoint yet"


def tidy(run: RunFolder, config: Config, counters: Counters, note: Callable[[str], None]) -> None:
    """Updates best.json and removes the checkpoints that need not be kept.

    Called after each save, and again on resume, because a kill in between may have prevented it. A disk error is only
    reported, because the new checkpoint itself is saved.
    """
    try:
        best = {"step": counters.best_step, "loss": counters.best_loss}
        if counters.best_step is None or not readable(run.checkpoint(counters.best_step)).is_dir():
            with disk_errors(run.best):
                run.best.unlink(missing_ok=True)  # after damage and a rollback, the best checkpoint may be missing
        elif not _holds(run.best, best):
            write_sealed_json(run.best, best)
        also = {counters.best_step, last_on_schedule(config, counters.step, counters.best_step)}
        rotate_checkpoints(run, counters.step, keep=config.checkpoint.keep, also=also)
    except ResourceError as error:
        note(f"Older checkpoints could not be removed, or {run.best.name} not written: {error.what} ({error.where})")


def last_on_schedule(config: Config, step: int, best_step: int | None) -> int:
    """The newest step up to `step` that a run saves on schedule: by its interval, or as the best one. 0: none."""
    every = config.train.save_every
    return max(step // every * every if every else 0, best_step or 0)


def _holds(path: Path, value: dict[str, Any]) -> bool:
    try:
        return read_sealed_json(path) == value
    except DamageError:
        return False
