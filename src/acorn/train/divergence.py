"""Divergence of training: skipped steps, loss spikes, and rollbacks to the last checkpoint."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import deque

import torch

from acorn.checkpoint.training_state import Counters
from acorn.counting import counted
from acorn.errors import DivergedError
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.train.logs import Logs
from acorn.train.network import Network
from acorn.train.rollback import go_back
from acorn.train.saving import last_checkpoint
from acorn.train.setup import Setup
from acorn.train.step import StepResult

SPIKE_WINDOW, SPIKE_RATIO, SPIKE_NATS = 50, 1.5, 1.0
"""A loss above SPIKE_RATIO times the median of the last SPIKE_WINDOW steps is reported, with the step's batch, if it
is also SPIKE_NATS above it: losses near 0, as at the end of finetuning, vary by that ratio from batch to batch."""


@dataclasses.dataclass
class DivergenceGuard:
    """Checks each step, and the weights before each save, and rolls the run back if they are not finite.

    Attributes:
        progress: is told the progress of verifying checkpoints.
    """

    setup: Setup
    network: Network
    logs: Logs
    progress: Progress

    def __post_init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)

    def fault_of_step(self, result: StepResult, counters: Counters) -> str | None:
        """Counts skipped steps and reports loss spikes. Returns why the run has to roll back, or None.

        Args:
            counters: after the step; `skips` is updated here.
        """
        counters.skips = counters.skips + 1 if result.diverged else 0
        self._report_anomalies(result, counters)
        if counters.skips > self.setup.config.train.max_skips:
            return f"{counted(counters.skips, 'step')} in a row {'was' if counters.skips == 1 else 'were'} not finite"
        return None

    def fault_of_weights(self) -> str | None:
        """Why the weights must not be saved and the run has to roll back, or None."""
        if weights_are_finite(self.network.model):
            return None
        return "the last update left weights that are not finite"

    def roll_back(self, why: str, counters: Counters) -> None:
        """Restores the last checkpoint, or the initial weights; the run continues from there in another sample order.

        Args:
            counters: are replaced by the checkpoint's, except for rollbacks and seconds.

        Raises:
            DivergedError: the limit of rollbacks is reached.
        """
        train, run = self.setup.config.train, self.setup.run
        rollbacks = counters.rollbacks + 1
        where = f"step {counters.step:,}, {self._batch(counters)}"
        if rollbacks > train.max_rollbacks:
            raise DivergedError(
                f"Training diverged: {why}, after {train.max_rollbacks} rollbacks.",
                where=where,
                fix="lower optimizer.lr, raise schedule.warmup, or set optimizer.clip, in another run or with "
                f"--allow-change; {last_checkpoint(run)}",
            )
        seconds = counters.seconds
        found = go_back(run, self.setup.config, self.network, counters, self.progress)
        for field in dataclasses.fields(Counters):
            setattr(counters, field.name, getattr(found, field.name))
        counters.rollbacks, counters.skips, counters.seconds = rollbacks, 0, seconds
        self._losses.clear()
        self.logs.cut_to(counters)
        self.logs.note(
            f"Training diverged at {where} ({why}): rolled back to step {counters.step:,} "
            f"(rollback {rollbacks} of {train.max_rollbacks}), with another sample order."
        )

    def _report_anomalies(self, result: StepResult, counters: Counters) -> None:
        """Reports a skipped step or a loss spike, with the step's batch."""
        batch = self._batch(counters)
        if not result.updated:
            why = "a loss or gradient was not finite" if result.diverged else "fp16 overflow"
            self.logs.note(f"step {counters.step:,} was skipped: {why} ({batch}).")
            return
        usual = statistics.median(self._losses) if len(self._losses) == SPIKE_WINDOW else math.inf
        if result.loss > max(SPIKE_RATIO * usual, usual + SPIKE_NATS):
            self.logs.note(f"step {counters.step:,}: loss spike: {result.loss:.3f} ({batch}).")
        self._losses.append(result.loss)

    def _batch(self, counters: Counters) -> str:
        """The samples of the last step's batch."""
        first = counters.samples - self.setup.config.train.batch_size
        return f"samples {first:,} to {counters.samples - 1:,}"


def weights_are_finite(model: GPT) -> bool:
    """Whether every parameter is finite. An update can overflow even if its gradient was finite. Synchronizes once."""
    return bool(torch.stack([parameter.detach().isfinite().all() for parameter in model.parameters()]).all())
