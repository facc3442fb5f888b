from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.report.curves import RunCurves, Series, cut_off_start, loss_range, range_from_zero, smoothed, thinned


def record(step: int, split: str = "train", **fields: Any) -> dict[str, Any]:
    return {"step": step, "tokens": 10 * step, "seconds": step / 2, "split": split, **fields}


def line(y: list[float]) -> Series:
    return Series(np.arange(len(y), dtype=float), np.array(y, dtype=float))


def test_a_series_has_one_split_and_skips_missing_values() -> None:
    metrics = [
        record(1, loss=5.0),
        record(1, "valid", loss=6.0),
        record(2),
        record(3, loss=4),
        record(4, loss=math.nan),
    ]
    run = RunCurves.from_metrics("mine", [*metrics, record(5, loss="four")])
    train, valid = run.series("train", "loss"), run.series("valid", "loss", "seconds")
    assert (train.x.tolist(), train.y.tolist()) == ([10.0, 30.0], [5.0, 4.0])
    assert (valid.x.tolist(), valid.y.tolist()) == ([0.5], [6.0])
    assert len(run.series("train", "lr")) == 0


@given(slope=st.floats(-10, 10), start=st.floats(-10, 10), n=st.integers(1, 3000))
def test_smoothing_does_not_move_a_straight_line(slope: float, start: float, n: int) -> None:
    """A centered window has no lag. Only at the end, where it is cut, is there a shift."""
    series = line([start + slope * index for index in range(n)])
    half = min(max(8, n // 100), n // 10)
    kept = n - half
    np.testing.assert_allclose(smoothed(series).y[:kept], series.y[:kept], atol=1e-6)


def test_smoothing_removes_noise() -> None:
    noise = np.random.default_rng(0).standard_normal(10_000)
    assert smoothed(line(noise.tolist())).y.std() < 0.1


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_few_points_can_be_smoothed(n: int) -> None:
    assert smoothed(line([3.0] * n)).y.tolist() == [3.0] * n


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=500), st.integers(4, 60))
def test_thinning_keeps_end_points_and_extremes(y: list[float], most: int) -> None:
    series = line(y)
    thin = thinned(series, most)
    assert len(thin) <= most + 3
    assert (thin.x[0], thin.x[-1]) == (series.x[0], series.x[-1])
    assert (thin.y.min(), thin.y.max()) == (series.y.min(), series.y.max())
    assert np.all(np.diff(thin.x) > 0)


def test_the_first_losses_and_a_single_spike_do_not_extend_the_y_range() -> None:
    losses = [11.0] * 20 + [4.0, 3.0] * 490
    losses[500] = 900.0
    metrics = [record(step, loss=loss) for step, loss in enumerate(losses, start=1)]
    low, high = loss_range([RunCurves.from_metrics("mine", metrics)]) or (0.0, 0.0)
    assert 2.9 < low < 3.0
    assert 4.0 < high < 4.1


def test_the_start_of_a_curve_is_shown_if_the_rest_stays_readable() -> None:
    """A fall from 7 to 4, then on to 2: the part after the first fall gets two thirds of the height."""
    losses = [7.0, 5.0] + [4.0 - 2.0 * step / 998 for step in range(998)]
    curves = [RunCurves.from_metrics("mine", [record(n, loss=loss) for n, loss in enumerate(losses, start=1)])]
    y_range = loss_range(curves) or (0.0, 0.0)
    assert y_range[0] < 2.0 < 7.0 < y_range[1]
    assert cut_off_start(curves, y_range) is None


def test_a_cut_off_start_has_a_note() -> None:
    losses = [11.0] * 20 + [4.0, 3.0] * 490
    curves = [RunCurves.from_metrics("mine", [record(n, loss=loss) for n, loss in enumerate(losses, start=1)])]
    assert cut_off_start(curves, loss_range(curves) or (0.0, 0.0)) == 11.0
    assert cut_off_start([RunCurves("empty", [], [])], (0.0, 1.0)) is None


def test_every_later_validation_is_in_the_y_range() -> None:
    metrics = [record(step, loss=3.0) for step in range(1, 101)] + [record(100, "valid", loss=7.0)]
    low, high = loss_range([RunCurves.from_metrics("mine", metrics)]) or (0.0, 0.0)
    assert low < 3.0 < 7.0 < high


def test_a_constant_loss_has_a_range_and_no_loss_has_none() -> None:
    low, high = loss_range([RunCurves.from_metrics("mine", [record(1, loss=2.0)])]) or (0.0, 0.0)
    assert low < 2.0 < high
    assert loss_range([RunCurves.from_metrics("mine", [record(1)])]) is None


def test_a_range_from_zero_is_never_empty() -> None:
    assert range_from_zero([line([1.0, 2.0])]) == pytest.approx((0.0, 2.2), rel=0.01)
    assert range_from_zero([line([0.0])]) == (0.0, 1.0)
    assert range_from_zero([]) == (0.0, 1.0)
