"""Line charts as SVG text. Colours come from the page's stylesheet, so one chart serves light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from acorn.report.curves import Series, Values, thinned
from acorn.report.formats import short
from acorn.report.markup import escaped

MOST_POINTS = 700  # of one line: about one a pixel
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 40  # margins around the plot, in the units of the view box

TIME_UNITS = (("days", 86_400.0, 3.0), ("hours", 3600.0, 3.0), ("minutes", 60.0, 3.0), ("seconds", 1.0, 0.0))
AXIS_TITLES = {"tokens": "tokens seen", "step": "optimizer steps"}


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        label: its name where the pointer rests.
        series: its points.
        colour: 0 to 5, the page's colours.
        kind: "raw" (faint, beneath the others, not named), "line", "thin" or "points" (line with a mark a point).
    """

    label: str
    series: Series
    colour: int
    kind: str = "line"


def chart(lines: Sequence[Line], x: str, y_range: tuple[float, float], size: tuple[int, int], summary: str) -> str:
    """An `<svg>` element.

    Args:
        lines: drawn in this order; those without points are left out.
        x: what the x axis counts: "tokens", "seconds" or "step".
        y_range: lowest and highest y shown; lines are cut off there.
        size: width and height of the view box; text is 12 units high.
        summary: what the chart shows, for those who cannot see it.
    """
    lines = [line for line in lines if len(line.series)]
    width, height = size
    plot_width, plot_height = width - LEFT - RIGHT, height - TOP - BOTTOM
    x_high = max((float(line.series.x.max()) for line in lines), default=1.0) or 1.0
    x_title, x_unit, x_format = _x_axis(x, x_high)
    low, high = y_range
    to_x = _scale(0.0, x_high, 0.0, plot_width)
    to_y = _scale(low, high, plot_height, 0.0)

    parts = []
    y_ticks = ticks(low, high, max(3, plot_height // 50))
    decimals = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9)) if len(y_ticks) > 1 else 2
    for tick in y_ticks:
        at = TOP + float(to_y(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_y_label(tick, decimals)}</text>')
    for tick in ticks(0.0, x_high / x_unit, max(3, plot_width // 110)):
        at = LEFT + float(to_x(tick * x_unit))
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{height - BOTTOM}" y2="{height - BOTTOM + 4}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{x_format(tick)}</text>'
        )
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{width - RIGHT}" y1="{height - BOTTOM}" y2="{height - BOTTOM}"/>')
    parts.append(f'<text class="title" x="{width - RIGHT}" y="{height - 5}" text-anchor="end">{x_title}</text>')
    # A nested <svg> cuts off what leaves the plot.
    parts.append(f'<svg class="plot" x="{LEFT}" y="{TOP}" width="{plot_width}" height="{plot_height}">')
    parts += [_polyline(line, to_x, to_y) for line in lines]
    parts.append("</svg>")
    parts += [_marks(line, to_x, to_y, plot_height) for line in lines if line.kind == "points"]
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(summary)}" '
        f'data-x="{x}" data-x-high="{x_high:.10g}" data-y-low="{low:.10g}" data-y-high="{high:.10g}" '
        f'data-plot="{LEFT} {TOP} {plot_width} {plot_height}">' + "".join(parts) + "</svg>"
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, near `about` of them."""
    rough = (high - low) / max(1, about)
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda candidate: abs(math.log(candidate / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _x_axis(x: str, high: float) -> tuple[str, float, Callable[[float], str]]:
    """Title, size of its unit, and how a number of units is written."""
    if x != "seconds":
        return AXIS_TITLES[x], 1.0, short
    name, unit = next((name, unit) for name, unit, least in TIME_UNITS if high >= least * unit)
    return f"training time in {name}", unit, lambda value: f"{value:g}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[Values | float], Values]:
    """The linear map that takes `low` to `start` and `high` to `end`."""
    factor = (end - start) / (high - low)
    return lambda value: np.asarray(start + (np.asarray(value) - low) * factor)


def _polyline(line: Line, to_x: Callable[[Values], Values], to_y: Callable[[Values], Values]) -> str:
    points = thinned(line.series, MOST_POINTS)
    text = " ".join(f"{px:.1f},{py:.2f}" for px, py in zip(to_x(points.x), to_y(points.y), strict=True))
    name = "" if line.kind == "raw" else f' data-name="{escaped(line.label)}"'
    return f'<polyline class="{line.kind} c{line.colour}"{name} points="{text}"/>'


def _marks(line: Line, to_x: Callable[[Values], Values], to_y: Callable[[Values], Values], plot_height: float) -> str:
    """A dot a point, outside the nested <svg> so that those at its edge stay round."""
    pairs = zip(to_x(line.series.x), to_y(line.series.y), strict=True)
    radius = 3.2 if len(line.series) <= 40 else 2.0
    return "".join(
        f'<circle class="c{line.colour}" cx="{LEFT + px:.1f}" cy="{TOP + py:.1f}" r="{radius}"/>'
        for px, py in pairs
        if 0 <= py <= plot_height
    )


def _y_label(value: float, decimals: int) -> str:
    if value != 0 and abs(value) < 0.01:
        return f"{value:.2g}".replace("e-0", "e-")
    return short(value) if abs(value) >= 1000 else f"{value:.{min(decimals, 4)}f}"
