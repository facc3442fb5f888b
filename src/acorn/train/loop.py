"""The training loop: step, then what is due after it (log, validate, sample, save), until the run is done."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

from acorn.checkpoint.training_state import Counters
from acorn.config import Config
from acorn.data.batches import read_batch
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError, DivergedError, StoppedError
from acorn.evaluate.validation import score
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.model.sizing import size_of
from acorn.progress import Progress
from acorn.report.metrics_log import JsonLines
from acorn.report.trackers import Trackers
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train.clock import RunClock
from acorn.train.optimizer import Optimizer, set_rates
from acorn.train.parallel import uncompiled
from acorn.train.passes import training_pass
from acorn.train.saving import Saver, go_back, standing, tidy, weights_are_finite
from acorn.train.schedule import context_at, is_done, rate_factor
from acorn.train.step import StepResult, train_step
from acorn.train.stop import StopAsked, StopRequest, UntilStopped
from acorn.train.watcher import Watcher

SPIKE_WINDOW, SPIKE_RATIO = 50, 1.5
"""A loss this many times the median of the last so many steps is named, with the batch it came from."""

SAMPLE_SETTINGS = SamplingSettings(temperature=0.8, top_k=50, seed=0, ignore_eos=True)
"""An early model often ends a document at once; an empty sample would tell nothing."""


@dataclasses.dataclass
class Loop:
    """One sitting of a run. `counters` says where the run stands; everything else is fixed.

    Attributes:
        begin: gives the model the weights that the run began with.
        resolved: what the machine's `auto` settings came to; stored in every checkpoint.
        peak_flops: FLOP/s of the machine's matrix products, for the share of it that training reaches.
    """

    config: Config
    run: RunFolder
    runtime: Runtime
    model: GPT
    optimizers: list[Optimizer]
    begin: Callable[[], None]
    shards: TokenShards
    tokenizer: Tokenizer
    counters: Counters
    resolved: dict[str, Any]
    peak_flops: float
    metrics: JsonLines
    samples: JsonLines
    trackers: Trackers
    watcher: Watcher
    progress: Progress

    def __post_init__(self) -> None:
        train = self.config.train
        self._pass = training_pass(self.model, self.runtime)
        self._tokens = self.shards.tokens("train")
        self._order = self._sample_order()
        self._context = self.config.model.block_size  # of the last step
        self._batch_tokens = train.batch_size * self.config.model.block_size
        self._first_step = self.counters.step
        self._clock = RunClock()
        self._seconds_before = self.counters.seconds
        self._since_log = [0.0, 0]  # seconds, tokens
        self._last_step_seconds = 0.0
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._stop = StopRequest()
        self._best_before: tuple[float | None, int | None] = (None, None)
        self._saver = Saver(
            self.run,
            self.config,
            self.tokenizer.to_json(),
            self.model,
            self.optimizers,
            self.resolved,
            self.metrics,
            self.samples,
            self.watcher.note,
        )

    def train(self) -> None:
        """Runs to the end of the run and leaves its last checkpoint.

        Raises:
            StoppedError: a signal asked to stop; a checkpoint was saved.
            DivergedError: numbers stayed non-finite past the guards.
            ResourceError: disk or memory ran out; the last checkpoint stands.
        """
        with self._stop as stop, self._clock:
            if self.counters.step:
                tidy(self.run, self.config, self.counters, self.watcher.note)
                self._make_up_for_a_stop()
            while not (self.is_done() and self._finish()):
                if not self._step():
                    continue
                improved = False
                if not stop.signal_number:
                    with contextlib.suppress(StopAsked):  # the run makes up for it when it goes on
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

    def _make_up_for_a_stop(self) -> None:
        """Validates and samples where a signal made the run save before it could, and saves where it would have.

        Raises:
            StoppedError: another signal came; the checkpoint stands.
        """
        if self.is_done() or not (self._has_to_validate() or self._has_to_sample()):
            return
        try:
            improved = self._look_at_the_model()
        except StopAsked:
            raise self._stopped(self._stop.signal_number or 0) from None
        if improved or self._due(self.config.train.save_every):
            self._save(scheduled=True, can_wait=True)

    def _has_to_validate(self) -> bool:
        return self._due(self.config.train.eval_every) and self.counters.valid_step != self.counters.step

    def _has_to_sample(self) -> bool:
        return self._due(self.config.train.sample_every) and self.counters.sample_step != self.counters.step

    def _look_at_the_model(self) -> bool:
        """Validates and samples, where that is due and not done. True if the loss is the lowest so far."""
        improved = self._has_to_validate() and self._validate()
        if self._has_to_sample():
            self._sample()
        return improved

    def is_done(self) -> bool:
        """Whether the steps or the minutes of the run are used up."""
        return is_done(self.config.train, self.counters)

    def _step(self) -> bool:
        """One optimizer step, logged. False if the run rolled back instead."""
        counters, train = self.counters, self.config.train
        begin = self._clock.seconds()
        done, share = self._done_and_share()
        factor = rate_factor(self.config.schedule, done, share)
        set_rates(self.optimizers, factor)
        first = counters.samples
        block_size = self.config.model.block_size
        self._context = context_at(self.config.schedule, block_size, done)
        inputs, targets = (
            windows.reshape(-1, self._context)  # in the first part of a run each is cut into shorter ones
            for windows in read_batch(self._tokens, self._order, first, train.batch_size)
        )
        result = train_step(
            self.model,
            self._pass,
            self.optimizers,
            inputs,
            targets,
            micro_batch_size=train.micro_batch_size * block_size // self._context,
            clip=self.config.optimizer.clip,
            seed=train.seed,
            counters=counters,
            runtime=self.runtime,
        )
        counters.step += 1
        counters.samples += train.batch_size
        counters.tokens += self._batch_tokens
        self._last_step_seconds = self._clock.seconds() - begin
        counters.train_seconds += self._last_step_seconds
        self._since_log[0] += self._last_step_seconds
        self._since_log[1] += self._batch_tokens
        self._tick()
        counters.skips = counters.skips + 1 if result.diverged else 0
        self._note_if_odd(result, first)
        if counters.skips > train.max_skips:
            self._roll_back(f"{counters.skips} steps in a row were not finite")
            return False
        if self._due(train.log_every):
            self._log(result, self.config.optimizer.peak_lr * factor)
        return True

    def _done_and_share(self) -> tuple[float, float]:
        """Share of the run done before the coming step, and the share that the step takes."""
        train = self.config.train
        if train.steps:
            return self.counters.step / train.steps, 1 / train.steps
        total = 60 * train.minutes
        return min(1.0, self.counters.seconds / total), self._last_step_seconds / total

    def _due(self, every: int) -> bool:
        return every > 0 and self.counters.step % every == 0

    def _tick(self) -> None:
        """Brings the run's clock up to now, and says how long this process was paused since the last time."""
        self.counters.seconds = self._seconds_before + self._clock.seconds()
        if paused := self._clock.take_pause():
            self.watcher.note(
                f"step {self.counters.step:,}: the process was stopped or asleep for {paused:.0f} s; this time does "
                "not count."
            )

    def _log(self, result: StepResult, lr: float) -> None:
        counters = self.counters
        seconds, tokens = self._since_log
        speed = tokens / seconds if seconds > 0 else 0.0
        model = self.config.model.model_copy(update={"block_size": self._context})
        self._since_log = [0.0, 0]
        record = self._record("train") | {
            "loss": result.loss,
            "bits_per_byte": self._bits_per_byte("train", result.loss),
            "lr": lr,
            "grad_norm": result.grad_norm,
            "tokens_per_second": speed,
            "mfu": speed * size_of(model).flops_per_token / self.peak_flops,
        }
        self.metrics.write(record)
        self.trackers.log(counters.step, "train", record)
        done, share = self._done_and_share()
        left = (1 - done) / share * counters.seconds / counters.step if self.config.train.steps else None
        if self.config.train.minutes:
            left = max(0.0, 60 * self.config.train.minutes - counters.seconds)
        self.watcher.step(record, done, left)

    def _record(self, split: str) -> dict[str, Any]:
        counters = self.counters
        return {
            "step": counters.step,
            "samples": counters.samples,
            "tokens": counters.tokens,
            "epoch": counters.samples / self._order.n_windows,
            "seconds": counters.seconds,
            "split": split,
        }

    def _bits_per_byte(self, split: str, loss: float) -> float:
        """Nats per token -> bits per byte of original text, as `acorn evaluate` counts them.

        A text of n tokens takes n - 1 predictions, for the separator that it begins with is given. Of a batch, or of a
        part of the split, this is an estimate: its own bytes are not known, those of the whole split are.
        """
        count = self.shards.count(split)
        return loss / math.log(2) * (count.tokens - 1) / count.bytes

    def _validate(self) -> bool:
        """Scores the validation split, or its stated part. True if the loss is the lowest so far.

        Raises:
            StopAsked: a signal came meanwhile; nothing was recorded.
        """
        with uncompiled(self.runtime):
            loss_sum, count = score(
                self.model,
                self.shards.tokens("valid"),
                context=self.config.model.block_size,
                autocast=self.runtime.autocast,
                limit=self.config.train.eval_tokens or None,
                progress=UntilStopped(self._stop),
            )
        counters, loss = self.counters, loss_sum / count
        counters.valid_loss, counters.valid_step = loss if math.isfinite(loss) else None, counters.step
        record = self._record("valid") | {"loss": loss, "bits_per_byte": self._bits_per_byte("valid", loss)}
        self.metrics.write(record)
        self.trackers.log(counters.step, "valid", record)
        self.watcher.valid(record)
        if not loss < (math.inf if counters.best_loss is None else counters.best_loss):  # NaN is never the best
            return False
        self._best_before = (counters.best_loss, counters.best_step)
        counters.best_loss, counters.best_step = loss, counters.step
        return True

    def _finish(self) -> bool:
        """The last validation, samples and checkpoint, unless the run was found with all of them.

        False if the run had to roll back.
        """
        counters = self.counters
        found = counters.step == self._first_step > 0
        with contextlib.suppress(StopAsked):
            if counters.valid_step != counters.step:
                found = False
                self._validate()
            if counters.sample_step != counters.step:
                found = False
                self._sample()
        return found or self._save(scheduled=True, can_wait=False)

    def _stopped(self, signal_number: int) -> StoppedError:
        return StoppedError(
            signal_number,
            f"Stopped at step {self.counters.step:,}; a checkpoint was saved.",
            where=str(self.run.checkpoint(self.counters.step)),
            mend=f"go on with: acorn pretrain --resume --out {self.run.root}",
        )

    def _sample(self) -> None:
        """Draws text from the model as it stands. Its random numbers are its own, so training is not disturbed."""
        settings = dataclasses.replace(SAMPLE_SETTINGS, max_new_tokens=self.config.train.sample_tokens)
        self.counters.sample_step = self.counters.step
        try:
            with self.runtime.autocast(), uncompiled(self.runtime):
                results = generate(self.model, self.tokenizer, list(self.config.train.sample_prompts), settings)
        except DamageError as error:  # logits out of fp16's range are no reason to end a run
            self.watcher.note(f"step {self.counters.step:,}: no sample could be drawn: {error.what}")
            return
        for result in results:
            self.samples.write({"step": self.counters.step, "prompt": result.prompt, "text": result.text})
            self.watcher.sample(self.counters.step, result.prompt, result.text)

    def _save(self, *, scheduled: bool, can_wait: bool) -> bool:
        """Saves a checkpoint; see `Saver.save`. False if it could not, or if it had to roll back.

        It rolls back where the weights are not finite.
        """
        if not weights_are_finite(self.model):
            self._roll_back("the last update left weights that are not finite")
            return False
        counters = self.counters
        saved = self._saver.save(counters, scheduled=scheduled, can_wait=can_wait)
        if not saved and counters.best_step == counters.step:  # the best one is a checkpoint that is there
            counters.best_loss, counters.best_step = self._best_before
            counters.undisturbed = False
        self._tick()
        return saved

    def _note_if_odd(self, result: StepResult, first: int) -> None:
        """Names a step that was skipped or whose loss leapt, with the batch that it saw."""
        counters = self.counters
        batch = f"samples {first:,} to {first + self.config.train.batch_size - 1:,}"
        if not result.updated:
            why = "a loss or gradient that is not finite" if result.diverged else "an overflow of fp16"
            self.watcher.note(f"step {counters.step:,} was skipped for {why} ({batch}).")
            return
        if len(self._losses) == SPIKE_WINDOW and result.loss > SPIKE_RATIO * statistics.median(self._losses):
            self.watcher.note(f"step {counters.step:,}: the loss leapt to {result.loss:.3f} ({batch}).")
        self._losses.append(result.loss)

    def _roll_back(self, why: str) -> None:
        """Goes back to the last checkpoint, or the initial weights, and on from there in another sample order.

        Raises:
            DivergedError: it went back as often as it may.
        """
        counters, train = self.counters, self.config.train
        rollbacks = counters.rollbacks + 1
        where = f"step {counters.step:,}, samples {counters.samples - train.batch_size:,} to {counters.samples - 1:,}"
        if rollbacks > train.max_rollbacks:
            raise DivergedError(
                f"Training diverged: {why}, after {train.max_rollbacks} rollbacks.",
                where=where,
                mend="lower optimizer.lr, raise schedule.warmup, or set optimizer.clip, in another run or with "
                f"--allow-change; {standing(self.run)}",
            )
        seconds = counters.seconds
        found = go_back(self.run, self.config, self.model, self.optimizers, counters, self.begin, self.progress)
        for field in dataclasses.fields(Counters):
            setattr(counters, field.name, getattr(found, field.name))
        counters.rollbacks, counters.skips, counters.seconds = rollbacks, 0, seconds
        self._order = self._sample_order()
        self._since_log = [0.0, 0]
        self._losses.clear()
        self._saver.failures, self._saver.retry_at = 0, None
        self.metrics.cut_to(counters.metrics_bytes)
        self.samples.cut_to(counters.samples_bytes)
        self.watcher.note(
            f"Training diverged at {where} ({why}): rolled back to step {counters.step:,} "
            f"(rollback {rollbacks} of {train.max_rollbacks}), with another sample order."
        )

    def _sample_order(self) -> SampleOrder:
        return SampleOrder(
            n_tokens=len(self._tokens),
            block_size=self.config.model.block_size,
            seed=self.config.train.seed,
            rollbacks=self.counters.rollbacks,
            shard_starts=tuple(int(start) for start in self._tokens.shard_starts),
            shuffle_group=self.config.data.shuffle_group,
        )
