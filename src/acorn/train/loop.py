"""The training loop: steps, and after each what is due (log, validate, sample, save), until the run is done."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

from acorn.checkpoint.training_state import Counters
from acorn.config import Config
from acorn.errors import DamageError, StoppedError
from acorn.model.sizing import size_of
from acorn.progress import Progress
from acorn.train.clock import RunClock
from acorn.train.divergence import DivergenceGuard
from acorn.train.forward_backward import training_forward_backward
from acorn.train.logs import Logs
from acorn.train.network import Network
from acorn.train.optimizer import set_rates
from acorn.train.parallel import uncompiled
from acorn.train.saving import Saver, tidy
from acorn.train.schedule import is_done, rate_factor
from acorn.train.setup import Setup
from acorn.train.step import StepResult, train_step
from acorn.train.stop import StopAsked, StopRequest, UntilStopped
from acorn.train.training_data import Batch, TrainingData

ASSUMED_FIRST_STEP_SECONDS = 1.0
"""Assumed duration of the first step of a process, for schedules by time: otherwise its learning rate would be zero."""


@dataclasses.dataclass
class Loop:
    """Trains a run until it ends or is stopped; a run that is resumed has several loops.

    Attributes:
        counters: the state of the run; they and the network's weights change, everything else is fixed.
        progress: is told the progress of verifying checkpoints before a rollback.
    """

    setup: Setup
    network: Network
    data: TrainingData
    counters: Counters
    logs: Logs
    progress: Progress

    def __post_init__(self) -> None:
        self._pass = training_forward_backward(self.network.model, self.setup.runtime)
        self._saver = Saver(self.setup, self.network, self.data.tokenizer.to_json(), self.logs)
        self._guard = DivergenceGuard(self.setup, self.network, self.logs, self.progress)
        self._stop = StopRequest()
        self._clock = RunClock()
        self._peak_flops = self.setup.peak_flops
        self._seconds_before = self.counters.seconds
        self._first_step = self.counters.step
        self._last_step_seconds = 0.0
        self._since_log = [0.0, 0]  # seconds, tokens
        self._best_before: tuple[float | None, int | None] = (None, None)

    @property
    def config(self) -> Config:
        return self.setup.config

    def train(self) -> None:
        """Trains to the end of the run and saves its last checkpoint.

        Raises:
            StoppedError: a signal stopped the run; a checkpoint was saved.
            DivergedError: training diverged too often.
            ResourceError: disk or memory ran out; the last checkpoint is intact.
        """
        with self._stop as stop, self._clock:
            if self.counters.step:
                tidy(self.setup.run, self.config, self.counters, self.logs.note)
                self._do_what_a_stop_prevented()
            while not (self.is_done() and self._finish()):
                if not self._step():
                    continue
                improved = False
                if not stop.signal_number:
                    with contextlib.suppress(StopAsked):  # what is skipped here is done on resume
                        improved = self._look_at_the_model()
                self._tick()
                if self.is_done():
                    continue
                scheduled = improved or self._due(self.config.train.save_every)
                if scheduled or stop.signal_number or self._saver.has_to_retry(self.counters.step):
                    saved = self._save(scheduled=scheduled, can_wait=not stop.signal_number)
                    if saved and stop.signal_number:
                        raise self._stopped(stop.signal_number)
        if stop.signal_number:
            raise self._stopped(stop.signal_number)

    def _do_what_a_stop_prevented(self) -> None:
        """On resume: validates and samples if a signal prevented that, and saves if the run would have.

        Raises:
            StoppedError: another signal came; the checkpoint is intact.
        """
        if self.is_done() or not (self._has_to_validate() or self._has_to_sample()):
            return
        try:
            improved = self._look_at_the_model()
        except StopAsked:
            raise self._stopped(self._stop.signal_number or 0) from None
        if improved or self._due(self.config.train.save_every):
            self._save(scheduled=True, can_wait=True)

    def _step(self) -> bool:
        """Does one optimizer step and logs it. False if the run rolled back instead."""
        counters, train = self.counters, self.config.train
        begin = self._clock.seconds()
        done, share = self._done_and_share()
        factor = rate_factor(self.config.schedule, done, share)
        set_rates(self.network.optimizers, factor)
        batch = self.data.batch(counters.samples, train.batch_size, rollbacks=counters.rollbacks, done=done)
        result = train_step(
            self.network.model,
            self._pass,
            self.network.optimizers,
            batch,
            clip=self.config.optimizer.clip,
            seed=train.seed,
            counters=counters,
            runtime=self.setup.runtime,
        )
        counters.step += 1
        counters.samples += train.batch_size
        counters.tokens += batch.tokens
        self._last_step_seconds = self._clock.seconds() - begin
        counters.train_seconds += self._last_step_seconds
        self._since_log[0] += self._last_step_seconds
        self._since_log[1] += batch.tokens
        self._tick()
        if fault := self._guard.fault_of_step(result, counters):
            self._roll_back(fault)
            return False
        if self._due(train.log_every):
            self._log(result, self.config.optimizer.peak_lr * factor, batch)
        return True

    def _log(self, result: StepResult, lr: float, batch: Batch) -> None:
        """Records a step."""
        counters, train = self.counters, self.config.train
        seconds, tokens = self._since_log
        self._since_log = [0.0, 0]
        speed = tokens / seconds if seconds > 0 else 0.0
        record = self._record("train", result.loss) | {
            "lr": lr,
            "grad_norm": result.grad_norm,
            "tokens_per_second": speed,
        }
        network = self.network.model
        trains_all = network.lora is None and not network.frozen
        if network.head is not None and trains_all and not batch.is_gathered:  # else FLOPs are not known
            model = self.config.model.model_copy(update={"block_size": batch.context})
            record["mfu"] = self._share_of_peak(speed * size_of(model).flops_per_token)
        done, share = self._done_and_share()
        if train.minutes:
            left = max(0.0, 60 * train.minutes - counters.seconds)
        else:
            left = (1 - done) / share * counters.seconds / counters.step
        self.logs.step(record, done, left)

    def _share_of_peak(self, flops: float) -> float:
        """The model FLOPs utilization: `flops` (FLOP/s) as a share of the machine's peak, which is raised if
        exceeded."""
        if flops > self._peak_flops:
            self._peak_flops = self.setup.exceeded(flops)
        return flops / self._peak_flops

    def _look_at_the_model(self) -> bool:
        """Validates and samples if that is due and not done yet. True if the loss is the lowest so far."""
        improved = self._has_to_validate() and self._validate()
        if self._has_to_sample():
            self._sample()
        return improved

    def _has_to_validate(self) -> bool:
        return self._due(self.config.train.eval_every) and self.counters.valid_step != self.counters.step

    def _has_to_sample(self) -> bool:
        return self._due(self.config.train.sample_every) and self.counters.sample_step != self.counters.step

    def _validate(self) -> bool:
        """Scores the validation split or its first tokens. True if the loss is the lowest so far.

        Raises:
            StopAsked: a signal came meanwhile; nothing was recorded.
        """
        runtime = self.setup.runtime
        with uncompiled(runtime):
            score = self.data.score(self.network.model, runtime, UntilStopped(self._stop))
        counters, loss = self.counters, score.loss
        counters.valid_loss, counters.valid_step = loss if math.isfinite(loss) else None, counters.step
        self.logs.valid(self._record("valid", loss) | dict(score.figures))
        if not loss < (math.inf if counters.best_loss is None else counters.best_loss):  # NaN is never the best
            return False
        self._best_before = (counters.best_loss, counters.best_step)
        counters.best_loss, counters.best_step = loss, counters.step
        return True

    def _sample(self) -> None:
        """Generates text with the current weights. It has its own random numbers, so it does not affect training.

        Raises:
            StopAsked: a signal came meanwhile; nothing was recorded.
        """
        runtime, samples = self.setup.runtime, []
        try:
            with uncompiled(runtime):
                samples = self.data.samples(self.network.model, runtime, UntilStopped(self._stop))
        except DamageError as error:  # logits out of fp16's range are no reason to end a run
            self.logs.note(f"step {self.counters.step:,}: no sample could be generated: {error.what}")
        self.counters.sample_step = self.counters.step
        for prompt, text in samples:
            self.logs.sample(self.counters.step, prompt, text)

    def _save(self, *, scheduled: bool, can_wait: bool) -> bool:
        """Saves a checkpoint with `Saver.save`, or rolls back if the weights are not finite.

        False if it rolled back or could not save.
        """
        if fault := self._guard.fault_of_weights():
            self._roll_back(fault)
            return False
        counters = self.counters
        saved = self._saver.save(counters, scheduled=scheduled, can_wait=can_wait)
        if not saved and counters.best_step == counters.step:  # the best checkpoint must exist
            counters.best_loss, counters.best_step = self._best_before
            counters.undisturbed = False
        self._tick()
        return saved

    def _roll_back(self, fault: str) -> None:
        self._guard.roll_back(fault, self.counters)
        self._saver.forget_failures()
        self._since_log = [0.0, 0]

    def _finish(self) -> bool:
        """The last validation, samples and checkpoint, unless the run had all of them when it was resumed.

        False if the run had to roll back.
        """
        counters = self.counters
        is_complete = counters.step == self._first_step > 0
        with contextlib.suppress(StopAsked):
            if counters.valid_step != counters.step:
                is_complete = False
                self._validate()
            if counters.sample_step != counters.step:
                is_complete = False
                self._sample()
        return is_complete or self._save(scheduled=True, can_wait=False)

    def _stopped(self, signal_number: int) -> StoppedError:
        return StoppedError(
            signal_number,
            f"Stopped at step {self.counters.step:,}; a checkpoint was saved.",
            where=str(self.setup.run.checkpoint(self.counters.step)),
            fix=f"resume with: {self.setup.command}",
        )

    def is_done(self) -> bool:
        """Whether the run has done all its steps or minutes."""
        return is_done(self.config.train, self.counters)

    def _done_and_share(self) -> tuple[float, float]:
        """Completed share of the run before the next step, and the share that the step takes."""
        train = self.config.train
        if train.steps:
            return self.counters.step / train.steps, 1 / train.steps
        total = 60 * train.minutes
        share = (self._last_step_seconds or ASSUMED_FIRST_STEP_SECONDS) / total
        return min(1.0, self.counters.seconds / total), min(1.0, share)

    def _due(self, every: int) -> bool:
        return every > 0 and self.counters.step % every == 0

    def _tick(self) -> None:
        """Updates the run's seconds, and reports pauses of this process since the last call."""
        self.counters.seconds = self._seconds_before + self._clock.seconds()
        if paused := self._clock.take_pause():
            self.logs.note(
                f"step {self.counters.step:,}: the process was stopped or asleep for {paused:.0f} s, which is "
                "not counted."
            )

    def _record(self, split: str, loss: float) -> dict[str, Any]:
        counters = self.counters
        return {
            "step": counters.step,
            "samples": counters.samples,
            "tokens": counters.tokens,
            "epoch": self.data.epochs(counters.samples),
            "seconds": counters.seconds,
            "split": split,
            "loss": loss,
            **self.data.figures(split, loss),
        }
