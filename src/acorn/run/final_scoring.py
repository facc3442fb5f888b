"""Scores the finished model on its held-out splits, within a share of train.minutes.

Whole splits are scored, unless train.minutes is set and scoring would take more than a third of that time. Then only
the first part of each split is scored, and the figures state its size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from acorn.advice import acorn_command
from acorn.config import Config
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError
from acorn.evaluate.validation import evaluate_split, score
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.report.formats import duration
from acorn.train.setup import Setup
from acorn.train.windows import RunText

HELD_OUT_SPLITS: tuple[str, ...] = ("valid", "test")
MAX_SHARE_OF_MINUTES = 1 / 3
MIN_SHARE_OF_SPLIT = 1 / 64
ANNOUNCE_FROM_SECONDS = 5.0  # scoring that takes less is not announced
BATCH_SIZE = 8
TIMED_BATCHES = 3  # the first one is the warm-up
MIN_BATCHES_TO_TIME = 32  # fewer are scored without estimating how long it takes


def score_held_out(
    setup: Setup,
    model: GPT,
    text: RunText,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, dict[str, Any]]:
    """Figures of each held-out split, as `acorn evaluate --json` gives them.

    A split whose loss is not finite is noted and left out.

    Args:
        clock: monotonic time in seconds.
    """
    config, shards = setup.config, text.shards
    sizes = {split: shards.count(split).tokens - 1 for split in HELD_OUT_SPLITS if split in shards.splits}
    seconds = sum(sizes.values()) / _tokens_per_second(setup, model, shards, sizes, progress, clock)
    share = _share(config, seconds)
    limits = {split: max(round(share * size), min(config.train.eval_tokens, size)) for split, size in sizes.items()}
    seconds *= sum(limits.values()) / max(1, sum(sizes.values()))
    if seconds > ANNOUNCE_FROM_SECONDS or limits != sizes:
        progress.note(_announcement(sizes, limits, seconds, setup))
    evaluation = {}
    for split, limit in limits.items():
        try:
            result = evaluate_split(
                model,
                text.tokenizer,
                shards,
                split,
                setup.runtime,
                batch_size=BATCH_SIZE,
                limit=limit,
                progress=progress,
            )
        except DamageError as error:  # the model is written even if its loss is not finite
            progress.note(f"{split} has no scores: {error.what}")
            continue
        evaluation[split] = dataclasses.asdict(result)
    return evaluation


def _tokens_per_second(
    setup: Setup,
    model: GPT,
    shards: TokenShards,
    sizes: dict[str, int],
    progress: Progress,
    clock: Callable[[], float],
) -> float:
    """Scoring speed, measured on a few batches; infinite if there are too few to measure."""
    context = setup.config.model.block_size
    split = max(sizes, key=lambda name: sizes[name])
    if (
        sum(sizes.values()) < MIN_BATCHES_TO_TIME * BATCH_SIZE * context
        or sizes[split] < TIMED_BATCHES * BATCH_SIZE * context
    ):
        return math.inf
    watch = _Stopwatch(progress, clock)
    with contextlib.suppress(DamageError):  # scoring meets the same error, and reports it
        score(
            model,
            shards.tokens(split),
            context=context,
            batch_size=BATCH_SIZE,
            autocast=setup.runtime.autocast,
            limit=TIMED_BATCHES * BATCH_SIZE * context,
            progress=watch,
            task="Measuring the scoring speed",
        )
    return watch.per_second


def _share(config: Config, seconds: float) -> float:
    """The share of each split that there is time to score: 1, 1/2, 1/4 and so on."""
    allowed = MAX_SHARE_OF_MINUTES * 60 * config.train.minutes if config.train.minutes else math.inf
    share = 1.0
    while share > MIN_SHARE_OF_SPLIT and share * seconds > allowed:
        share /= 2
    return share


def _announcement(sizes: dict[str, int], limits: dict[str, int], seconds: float, setup: Setup) -> str:
    names, scored, tokens = " and ".join(sizes), sum(limits.values()), sum(sizes.values())
    safe = f"Ctrl-C is safe: training is saved, and {setup.command} finishes the rest."
    if scored == tokens:
        return f"Scoring all of {names} ({tokens:,} tokens) takes about {duration(seconds)}. {safe}"
    return (
        f"Scoring the first {100 * scored / tokens:.3g} % of {names} ({scored:,} of {tokens:,} tokens) takes about "
        f"{duration(seconds)}; all of it would take more than a third of train.minutes. "
        f"{acorn_command('evaluate', setup.run.root)} scores all. {safe}"
    )


class _Stopwatch:
    """A progress listener that measures the rate from its first report to its last."""

    def __init__(self, listener: Progress, clock: Callable[[], float]) -> None:
        self._listener, self._clock = listener, clock
        self._heard: list[tuple[float, float]] = []

    @property
    def per_second(self) -> float:
        if len(self._heard) < 2:
            return math.inf
        (start, before), (end, after) = self._heard[0], self._heard[-1]
        return (after - before) / (end - start) if end > start else math.inf

    def note(self, text: str) -> None:
        self._listener.note(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        self._heard.append((self._clock(), done))
        self._listener.at(task, done, total, unit)

    def end(self, task: str) -> None:
        self._listener.end(task)
