"""The reliability curve as SVG text of the page: of the predictions with 80 %, how many are right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.report.markup import escaped

WIDTH, PLOT, LEFT, TOP = 400, 300, 46, 10
BARS = 54  # height of the bars below the curve, which say how many predictions a bin has
BETWEEN = 34
HEIGHT = TOP + PLOT + BETWEEN + BARS + 40
RIGHT = WIDTH - LEFT - PLOT


def reliability_figure(reliability: Sequence[Mapping[str, Any]], error: float | None = None) -> str:
    """A `<figure>` with accuracy over confidence, and the number of predictions by confidence below.

    Args:
        reliability: bins with `from`, `to`, `predictions`, `confidence` and `accuracy`; the last two are None in a bin
            without predictions.
        error: the expected calibration error.

    Returns:
        the figure; empty without any prediction.
    """
    filled = [each for each in reliability if each["predictions"]]
    if not filled:
        return ""
    told = "" if error is None else f"expected calibration error {error:.3f}; "
    legend = f"{told}on the diagonal, probabilities mean what they say; below it, the model is too confident"
    caption = f'<figcaption><b>Reliability curve</b><span class="legend">{legend}</span></figcaption>'
    return f'<figure class="narrow">{caption}{_svg(reliability, filled)}</figure>'


def _svg(reliability: Sequence[Mapping[str, Any]], filled: Sequence[Mapping[str, Any]]) -> str:
    bottom = TOP + PLOT
    parts = [*_grid(bottom), f'<path class="ideal" d="M{LEFT} {bottom}L{LEFT + PLOT} {TOP}"/>']
    points = [(LEFT + PLOT * each["confidence"], bottom - PLOT * each["accuracy"]) for each in filled]
    for (x, y), each in zip(points, filled, strict=True):
        ideal = bottom - PLOT * each["confidence"]
        parts.append(f'<path class="gap" d="M{x:.1f} {ideal:.1f}V{y:.1f}"/>')
    parts.append(f'<polyline class="line c0" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    for (x, y), each in zip(points, filled, strict=True):
        parts.append(
            f'<circle class="c0" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escaped(_said(each))}</title></circle>'
        )
    most, floor = max(each["predictions"] for each in filled), HEIGHT - 40
    for each in reliability:
        high = BARS * each["predictions"] / most
        x, width = LEFT + PLOT * each["from"], PLOT * (each["to"] - each["from"])
        if each["predictions"]:
            parts.append(
                f'<rect class="bar" x="{x + 1:.1f}" y="{floor - high:.1f}" width="{width - 2:.1f}" height="{high:.1f}">'
                f"<title>{escaped(_said(each))}</title></rect>"
            )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{floor}" y2="{floor}"/>')
    parts.append(f'<text class="tick" x="{LEFT - 8}" y="{floor - BARS + 10}" text-anchor="end">{most:,}</text>')
    parts.append(f'<text class="title" x="{LEFT}" y="{floor - BARS - 6}">predictions</text>')
    parts.append(f'<text class="title" x="{LEFT + PLOT}" y="{HEIGHT - 6}" text-anchor="end">confidence</text>')
    parts.append(f'<text class="title" x="{LEFT + 6}" y="{TOP + 14}">accuracy</text>')
    for tenth in range(0, 11, 2):
        x = LEFT + PLOT * tenth / 10
        parts.append(f'<text class="tick" x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{tenth / 10:g}</text>')
    summary = "Reliability curve: " + "; ".join(map(_said, filled))
    return (
        f'<svg class="matrix reliability" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escaped(summary)}">{"".join(parts)}</svg>'
    )


def _grid(bottom: int) -> list[str]:
    parts = []
    for tenth in range(0, 11, 2):
        y, x = bottom - PLOT * tenth / 10, LEFT + PLOT * tenth / 10
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}h{PLOT}M{x:.1f} {TOP}v{PLOT}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:g}</text>')
    return parts


def _said(each: Mapping[str, Any]) -> str:
    return (
        f"confidence {each['from']:g} to {each['to']:g}: {each['predictions']:,} predictions, "
        f"{100 * each['accuracy']:.3g} % right at {100 * each['confidence']:.3g} % on average"
    )
