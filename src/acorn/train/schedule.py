"""Learning rate, context length and the end of a run, as pure functions of its progress."""

from __future__ import annotations

import math

from acorn.checkpoint.training_state import Counters
from acorn.config import ScheduleConfig, TrainConfig


def rate_factor(schedule: ScheduleConfig, done: float, step_share: float) -> float:
    """Learning rate of a step, as a share of the peak.

    Warm-up includes the step itself, so that the first update has a rate above zero; decay does not, so that the last
    one does too.

    Args:
        done: share of the run completed before this step, in [0, 1): of its steps, or of its minutes.
        step_share: share of the run that this step takes.
    """
    if done + step_share < schedule.warmup:
        return (done + step_share) / schedule.warmup
    decay_range = 1 - schedule.floor
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "wsd":
        begin = max(schedule.warmup, 1 - schedule.decay)
        return 1.0 if done <= begin else schedule.floor + decay_range * (1 - done) / (1 - begin)
    after_warmup = min(1.0, max(0.0, (done - schedule.warmup) / max(1 - schedule.warmup, 1e-12)))
    if schedule.name == "linear":
        return schedule.floor + decay_range * (1 - after_warmup)
    return schedule.floor + decay_range * (1 + math.cos(math.pi * after_warmup)) / 2


def is_done(train: TrainConfig, counters: Counters) -> bool:
    """Whether the steps or the minutes of a run are used up."""
    if train.steps:
        return counters.step >= train.steps
    return counters.seconds >= 60 * train.minutes


def context_at(schedule: ScheduleConfig, block_size: int, done: float) -> int:
    """Context length, in tokens, that a step trains on.

    Early in training a model uses only the last few tokens, and learns faster from more and shorter windows (Press et
    al. 2021, "Shortformer").

    Args:
        done: share of the run completed before this step, in [0, 1).
    """
    return min(schedule.short_context or block_size, block_size) if done < schedule.short_share else block_size
