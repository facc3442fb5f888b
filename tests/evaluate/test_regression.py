from __future__ import annotations

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.errors import DamageError, InputError
from acorn.evaluate.regression import value_figures

values = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6))
pairs = st.lists(st.tuples(values, values), min_size=1, max_size=30)


def test_figures_counted_by_hand() -> None:
    figures = value_figures([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 2.0, 7.0])
    assert figures["mean_absolute_error"] == 1.0
    assert figures["rmse"] == pytest.approx(math.sqrt(10 / 4))
    assert figures["pearson"] == pytest.approx(9 / math.sqrt(5 * 22))
    # ranks 1, 2, 3, 4 and 1, 2.5, 2.5, 4
    assert figures["spearman"] == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert figures["notes"] == []


@pytest.mark.parametrize(
    ("true", "predicted", "reason"),
    [
        ([1.0], [2.0], "a single example"),
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], "the same label"),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "the same value for every example"),
    ],
)
def test_correlations_without_variation_are_null(true: list[float], predicted: list[float], reason: str) -> None:
    figures = value_figures(true, predicted)
    assert (figures["pearson"], figures["spearman"]) == (None, None)
    assert reason in figures["notes"][0]
    assert figures["rmse"] is not None


@given(pairs)
def test_figures_are_finite_and_match_the_standard_library(found: list[tuple[float, float]]) -> None:
    true, predicted = zip(*found, strict=True)
    figures = value_figures(true, predicted)
    json.dumps(figures, allow_nan=False)
    off = [abs(a - b) for a, b in found]
    assert figures["mean_absolute_error"] == pytest.approx(statistics.fmean(off))
    assert figures["rmse"] == pytest.approx(math.sqrt(statistics.fmean(each * each for each in off)))
    if figures["spearman"] is not None:
        expected = statistics.correlation(*(_ranks_by_counting(side) for side in (true, predicted)))
        assert figures["spearman"] == pytest.approx(expected, abs=1e-9)
        assert -1 <= figures["pearson"] <= 1


def _ranks_by_counting(side: tuple[float, ...]) -> list[float]:
    """The rank of a value is 1 + those below + half of those equal to it, itself left out."""
    return [1 + sum(b < a for b in side) + (sum(b == a for b in side) - 1) / 2 for a in side]


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20, unique=True), st.floats(0.01, 100), st.floats(-50, 50))
def test_a_linear_map_is_full_correlation(true: list[float], slope: float, offset: float) -> None:
    wide = [a for a in true if abs(a) > 1e-3]
    if len({slope * a + offset for a in wide}) < 2 or max(wide) - min(wide) < 1:
        return
    assert value_figures(wide, [slope * a + offset for a in wide])["pearson"] == pytest.approx(1.0)
    assert value_figures(wide, [-slope * a + offset for a in wide])["pearson"] == pytest.approx(-1.0)


def test_values_at_the_ends_of_floats() -> None:
    big = value_figures([1e300, -1e300, 0.0], [9e299, -9e299, 0.0])
    assert big["rmse"] == pytest.approx(math.sqrt(2 / 3) * 1e299)
    assert big["pearson"] == pytest.approx(1.0)
    close = value_figures([1.0, math.nextafter(1.0, 2.0)], [0.0, 5e-324])
    assert close["pearson"] == pytest.approx(1.0)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="0 examples"):
        value_figures([], [])
    with pytest.raises(InputError, match="example 2"):
        value_figures([1.0, math.inf], [1.0, 1.0])
    with pytest.raises(DamageError, match="example 1"):
        value_figures([1.0], [math.nan])
    with pytest.raises(ValueError, match="do not match"):
        value_figures([1.0], [1.0, 2.0])


def test_spearman_is_what_scipy_computes() -> None:
    stats = pytest.importorskip("scipy.stats", reason="the extra baselines is not installed")
    true, predicted = [3.0, 1.0, 1.0, 2.0, 5.0, 5.0], [2.0, 2.0, 1.0, 0.5, 3.0, 9.0]
    figures = value_figures(true, predicted)
    assert figures["spearman"] == pytest.approx(stats.spearmanr(true, predicted).statistic)
    assert figures["pearson"] == pytest.approx(stats.pearsonr(true, predicted).statistic)
