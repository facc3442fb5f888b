"""Saving a run's state: on schedule, again a little later where the disk fails, and going back to what was saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.rotation import rotate_checkpoints
from acorn.checkpoint.training_state import Counters, read_checkpoint, restore, save_checkpoint
from acorn.config import Config
from acorn.errors import DamageError, ResourceError
from acorn.files import read_sealed_json, write_sealed_json
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.report.metrics_log import JsonLines
from acorn.run_folder import RunFolder
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
    optimizers: list[torch.optim.Optimizer]
    resolved: dict[str, Any]
    metrics: JsonLines
    samples: JsonLines
    note: Callable[[str], None]
    failures: int = 0
    retry_at: int | None = None

    def has_to_retry(self, step: int) -> bool:
        return self.retry_at is not None and step >= self.retry_at

    def save(self, counters: Counters, *, can_wait: bool) -> None:
        """Writes the checkpoint of this step, then removes those that are no longer to be kept.

        Args:
            can_wait: a failure is only noted, and the save is due again some steps later; the fourth in a row counts.

        Raises:
            ResourceError: the disk is full or cannot be written. The last checkpoint stands.
        """
        try:
            self._write(counters)
        except ResourceError as error:
            if not can_wait or self.failures == len(RETRY_STEPS):
                tries = f" in {self.failures + 1} tries" if self.failures else ""
                raise ResourceError(
                    f"The checkpoint of step {counters.step:,} could not be saved{tries}; the last one stands. "
                    + error.what,
                    where=error.where,
                    mend=f"{error.mend}; then go on with: acorn pretrain --resume --out {self.run.root}",
                ) from error
            wait = RETRY_STEPS[self.failures]
            self.failures += 1
            self.retry_at = counters.step + wait
            self.note(
                f"The checkpoint of step {counters.step:,} could not be saved: {error.what} "
                f"The last one stands; trying again at step {self.retry_at:,}."
            )
        else:
            self.failures, self.retry_at = 0, None

    def tidy(self, counters: Counters) -> None:
        """Names the best checkpoint and removes those no longer kept: what a kill right after a save leaves undone.

        Raises:
            ResourceError: as `save`.
        """
        if counters.best_step is not None:
            best = {"step": counters.best_step, "loss": counters.best_loss}
            if not _holds(self.run.best, best):
                write_sealed_json(self.run.best, best)
        rotate_checkpoints(self.run, keep=self.config.checkpoint.keep, best_step=counters.best_step)

    def _write(self, counters: Counters) -> None:
        self.metrics.sync()
        self.samples.sync()
        counters.metrics_bytes, counters.samples_bytes = self.metrics.length, self.samples.length
        path = self.run.checkpoint(counters.step)
        save_checkpoint(path, self.config, self.tokenizer_json, self.model, self.optimizers, counters, self.resolved)
        self.tidy(counters)


def weights_are_finite(model: GPT) -> bool:
    """Whether every parameter is. An update can overflow though its gradient was finite. One wait for the device."""
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in model.parameters()]).all())


def go_back(
    run: RunFolder,
    config: Config,
    model: GPT,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
) -> Counters:
    """Puts model and optimizers back to the newest checkpoint, or to the run's beginning where there is none.

    Raises:
        DamageError: there are checkpoints, and none is whole.
    """
    path = newest_whole_checkpoint(run, progress)
    if path is None:
        model.init_weights(config.train.seed)
        for optimizer in optimizers:
            optimizer.state.clear()
        return initial_counters(config.train.steps, config.train.precision)
    checkpoint = read_checkpoint(path)
    restore(model, optimizers, checkpoint)
    counters = checkpoint.counters
    on_schedule = config.train.save_every > 0 and counters.step % config.train.save_every == 0
    if not on_schedule and counters.best_step != counters.step:
        # A signal or a full disk put it there: a run that met neither would have gone back further.
        counters.undisturbed = False
    return counters


def _holds(path: Path, value: dict[str, Any]) -> bool:
    try:
        return read_sealed_json(path) == value
    except DamageError:
        return False
