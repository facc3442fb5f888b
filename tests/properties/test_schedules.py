"""Every schedule, for every valid config, compared with its documentation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.config import ScheduleConfig
from acorn.train.schedule import rate_factor

# Usual shares, and unusual ones.
shares = st.one_of(st.sampled_from([0.0, 0.02, 0.4, 0.5, 0.9, 1.0]), st.floats(0, 1))
schedules = st.builds(
    ScheduleConfig,
    name=st.sampled_from(["constant", "linear", "cosine", "wsd"]),
    warmup=shares,
    decay=shares,
    floor=shares,
)
ROUNDING_TOLERANCE = 1e-9


def by_the_corners(schedule: ScheduleConfig, done: float) -> float:
    """The rate at share `done` of the run, as a share of the peak: piecewise linear, or a half cosine."""
    if done < schedule.warmup:
        return done / schedule.warmup
    if schedule.name == "constant" or schedule.warmup == 1:
        return 1.0
    if schedule.name == "cosine":
        passed = (done - schedule.warmup) / (1 - schedule.warmup)
        return schedule.floor + (1 - schedule.floor) * math.cos(math.pi * passed / 2) ** 2
    begin = max(schedule.warmup, 1 - schedule.decay) if schedule.name == "wsd" else schedule.warmup
    return 1.0 if begin == 1 else float(np.interp(done, [begin, 1.0], [1.0, schedule.floor]))


def curve(schedule: ScheduleConfig, steps: int) -> list[float]:
    return [rate_factor(schedule, step / steps, 1 / steps) for step in range(steps)]


@given(schedules, st.integers(1, 200))
def test_each_step_has_the_documented_rate(schedule: ScheduleConfig, steps: int) -> None:
    """Warm-up includes the step itself, decay does not."""
    for step, factor in enumerate(curve(schedule, steps)):
        after = step / steps + 1 / steps
        counted = after if after < schedule.warmup else max(step / steps, schedule.warmup)
        assert factor == pytest.approx(by_the_corners(schedule, counted), abs=1e-6)


@given(schedules, st.integers(1, 10**6))
def test_neither_the_first_step_nor_the_last_has_rate_zero(schedule: ScheduleConfig, steps: int) -> None:
    first, last = (rate_factor(schedule, step / steps, 1 / steps) for step in (0, steps - 1))
    assert 0 < first <= 1 + ROUNDING_TOLERANCE
    assert max(0.0, min(schedule.floor, first)) - ROUNDING_TOLERANCE <= last <= 1 + ROUNDING_TOLERANCE
    assert last > 0


@given(schedules, st.integers(2, 200))
def test_rate_rises_to_the_peak_then_falls_to_the_floor(schedule: ScheduleConfig, steps: int) -> None:
    factors = curve(schedule, steps)
    warm = sum(step / steps + 1 / steps < schedule.warmup for step in range(steps))
    rising, falling = factors[:warm], factors[warm:]
    assert all(a < b <= 1 + ROUNDING_TOLERANCE for a, b in pairwise(rising))
    assert all(a + ROUNDING_TOLERANCE >= b >= schedule.floor - ROUNDING_TOLERANCE for a, b in pairwise(falling))
    assert not falling or falling[0] == pytest.approx(by_the_corners(schedule, max(warm / steps, schedule.warmup)))


@settings(max_examples=200)
@given(schedules, st.floats(0, 1, exclude_max=True), st.floats(1e-9, 1e-3))
def test_rate_is_continuous(schedule: ScheduleConfig, done: float, ahead: float) -> None:
    """The rate changes no faster than the steepest of its parts."""
    later = min(done + ahead, 1.0)
    before, after = (rate_factor(schedule, moment, 0.0) for moment in (done, later))
    begin = max(schedule.warmup, 1 - schedule.decay) if schedule.name == "wsd" else schedule.warmup
    slopes = [1 / schedule.warmup] if schedule.warmup else []
    if begin < 1:
        slopes.append((math.pi / 2 if schedule.name == "cosine" else 1) / (1 - begin))
    assert abs(after - before) <= max(slopes, default=0.0) * (later - done) * (1 + 1e-6) + ROUNDING_TOLERANCE
