from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.evaluate.calibration import calibration

decisions = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_bins_counted_by_hand() -> None:
    """0.7 to 0.8: one of two right at 0.75 on average; 0.9 to 1: both right at 0.95."""
    found = calibration(np.array([0.72, 0.78, 0.95, 0.95]), np.array([True, False, True, True]))
    seventh, ninth = found["reliability"][7], found["reliability"][9]
    assert seventh == {"from": 0.7, "to": 0.8, "predictions": 2, "confidence": pytest.approx(0.75), "accuracy": 0.5}
    assert ninth["accuracy"] == 1.0
    assert found["expected_calibration_error"] == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)
    empty = found["reliability"][3]
    assert (empty["predictions"], empty["confidence"], empty["accuracy"]) == (0, None, None)


@pytest.mark.parametrize(("confidence", "number"), [(0.0, 0), (0.1, 0), (0.3, 2), (0.7, 6), (0.70001, 7), (1.0, 9)])
def test_a_bin_holds_its_upper_bound(confidence: float, number: int) -> None:
    found = calibration(np.array([confidence]), np.array([True]))["reliability"]
    assert [bin["predictions"] for bin in found] == [int(at == number) for at in range(10)]


@given(decisions)
def test_bins_hold_all_and_the_error_is_the_sum_over_examples_by_bin(found: list[tuple[float, bool]]) -> None:
    confidence, correct = np.array([p for p, _ in found]), np.array([right for _, right in found])
    figures = calibration(confidence, correct)
    assert sum(bin["predictions"] for bin in figures["reliability"]) == len(found)
    error = 0.0
    for bin in figures["reliability"]:
        inside = (confidence > bin["from"]) & (confidence <= bin["to"]) | ((bin["from"] == 0) & (confidence == 0))
        assert inside.sum() == bin["predictions"]
        error += abs((correct[inside] - confidence[inside]).sum())
    assert figures["expected_calibration_error"] == pytest.approx(error / len(found), abs=1e-12)


def test_probabilities_that_hold_have_no_error() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(size=100_000)
    correct = generator.uniform(size=100_000) < confidence
    assert calibration(confidence, correct)["expected_calibration_error"] < 0.01
    assert calibration(confidence**2, correct)["expected_calibration_error"] == pytest.approx(1 / 6, abs=0.01)
