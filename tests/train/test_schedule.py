"""Schedules, compared with their closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.checkpoint.training_state import Counters
from acorn.config import ScheduleConfig, TrainConfig
from acorn.train.schedule import context_at, is_done, rate_factor

NAMES = ("constant", "linear", "cosine", "wsd")
shares = st.floats(0, 1)


def curve(schedule: ScheduleConfig, steps: int) -> list[float]:
    return [rate_factor(schedule, step / steps, 1 / steps) for step in range(steps)]


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_includes_the_step_itself(name: str) -> None:
    """(step + 1) / warm-up steps: never an update at rate zero."""
    factors = curve(ScheduleConfig(name=name, warmup=0.1), 100)
    assert factors[:9] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert factors[10] == pytest.approx(1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_update_is_not_at_rate_zero(name: str) -> None:
    assert curve(ScheduleConfig(name=name, warmup=0.0), 50)[-1] > 0


def test_closed_forms() -> None:
    steps = 200
    linear = curve(ScheduleConfig(name="linear", warmup=0.0, floor=0.1), steps)
    assert linear == pytest.approx([0.1 + 0.9 * (1 - step / steps) for step in range(steps)])
    cosine = curve(ScheduleConfig(name="cosine", warmup=0.0), steps)
    assert cosine == pytest.approx([(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)])
    wsd = curve(ScheduleConfig(name="wsd", warmup=0.1, decay=0.25), steps)
    assert wsd[20:150] == [1.0] * 130
    assert wsd[150:] == pytest.approx([(steps - step) / 50 for step in range(150, steps)])
    assert curve(ScheduleConfig(name="constant", warmup=0.0), steps) == [1.0] * steps


@given(st.sampled_from(NAMES), shares, shares, shares, shares, shares)
def test_rate_is_between_zero_and_the_peak(
    name: str, warmup: float, decay: float, floor: float, done: float, step_share: float
) -> None:
    """For every valid config, including a warm-up that leaves no steps for the decay."""
    schedule = ScheduleConfig(name=name, warmup=warmup, decay=decay, floor=floor)
    assert 0 <= rate_factor(schedule, done, step_share) <= 1 + 1e-9


def test_context_is_short_for_its_share_and_full_afterwards() -> None:
    schedule = ScheduleConfig(short_context=16, short_share=0.25)
    assert [context_at(schedule, 64, step / 8) for step in range(8)] == [16, 16, 64, 64, 64, 64, 64, 64]
    assert context_at(ScheduleConfig(), 64, 0.0) == context_at(ScheduleConfig(short_context=100), 64, 0.0) == 64
    assert context_at(ScheduleConfig(short_context=16, short_share=0), 64, 0.0) == 64


@pytest.mark.parametrize(
    ("length", "step", "seconds", "done"),
    [
        ({"steps": 12}, 11, 1e9, False),
        ({"steps": 12}, 12, 0.0, True),
        ({"minutes": 0.5}, 10**9, 29.9, False),
        ({"minutes": 0.5}, 1, 30.0, True),
    ],
)
def test_a_run_is_done_after_its_steps_or_minutes(length: dict, step: int, seconds: float, done: bool) -> None:
    assert is_done(TrainConfig(**length), Counters(step=step, seconds=seconds)) == done
