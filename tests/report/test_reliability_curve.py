from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from acorn.report.reliability_curve import LEFT, PLOT, TOP, reliability_figure


def bins(**filled: tuple[int, float, float]) -> list[dict[str, Any]]:
    """Ten bins, empty but for `filled`: b7=(predictions, confidence, accuracy)."""
    found = []
    for number in range(10):
        count, confidence, accuracy = filled.get(f"b{number}", (0, None, None))
        bounds = {"from": number / 10, "to": (number + 1) / 10}
        found.append({**bounds, "predictions": count, "confidence": confidence, "accuracy": accuracy})
    return found


def test_points_stand_at_confidence_and_accuracy() -> None:
    figure = ElementTree.fromstring(reliability_figure(bins(b5=(10, 0.55, 0.5), b9=(40, 0.95, 1.0)), 0.05))
    points = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in figure.iter("circle")]
    assert [(x - LEFT) / PLOT for x, _ in points] == pytest.approx([0.55, 0.95], abs=0.001)
    assert [1 - (y - TOP) / PLOT for _, y in points] == pytest.approx([0.5, 1.0], abs=0.001)
    heights = [float(bar.attrib["height"]) for bar in figure.iter("rect")]
    assert heights[0] / heights[1] == pytest.approx(10 / 40, abs=0.01)
    text = "".join(figure.itertext())
    assert "expected calibration error 0.050" in text
    assert "confidence 0.9 to 1: 40 predictions, 100 % right at 95 % on average" in text


def test_without_predictions_there_is_no_figure() -> None:
    assert reliability_figure(bins()) == ""
    assert reliability_figure([]) == ""
