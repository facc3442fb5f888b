"""Line charts as SVG text. Colours come from the page's stylesheet, so one chart serves light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from acorn.report.curves import Series, Values, thinned
from acorn.report.formats import short
from acorn.report.markup import escaped

POINTS_PER_UNIT = 0.8  # of one line, by the width of the plot: about one a pixel
MOST_MARKS = 60  # of one line: more would run into each other
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 40  # margins around the plot, in the units of the view box

TIME_UNITS = (("days", 86_400.0, 3.0), ("hours", 3600.0, 3.0), ("minutes", 60.0, 3.0), ("seconds", 1.0, 0.0))
AXIS_TITLES = {"tokens": "tokens seen", "step": "optimizer steps", "seconds": "training time in "}

Scale = Callable[[Values | float], Values]


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        label: its name where the pointer rests.
        series: its points.
        colour: 0 to 5, the page's colours.
        kind: "raw" (faint, beneath the others, not named), "line", "thin" or "points" (marked, where there is room).
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
    drawn = [line for line in lines if len(line.series)]
    width, height = size
    plot_width, plot_height = width - LEFT - RIGHT, height - TOP - BOTTOM
    x_high = max((float(line.series.x.max()) for line in drawn), default=1.0) or 1.0
    low, high = y_range
    to_x, to_y = _scale(0.0, x_high, 0.0, plot_width), _scale(low, high, plot_height, 0.0)
    marked = [line for line in drawn if line.kind == "points" and len(line.series) <= MOST_MARKS]
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(summary)}" '
        f'data-x="{x}" data-x-high="{x_high:.10g}" data-y-low="{low:.10g}" data-y-high="{high:.10g}" '
        f'data-plot="{LEFT} {TOP} {plot_width} {plot_height}">',
        _y_axis(low, high, to_y, size),
        _x_axis(x, x_high, to_x, size),
        # A nested <svg> cuts off what leaves the plot.
        f'<svg class="plot" x="{LEFT}" y="{TOP}" width="{plot_width}" height="{plot_height}">',
        *(_polyline(line, to_x, to_y, round(POINTS_PER_UNIT * plot_width)) for line in drawn),
        "</svg>",
        *(_marks(line, to_x, to_y, plot_height) for line in marked),
        "</svg>",
    ]
    return "".join(parts)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`, near `about` of them."""
    rough = (high - low) / max(1, about)
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda candidate: abs(math.log(candidate / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _y_axis(low: float, high: float, to_y: Scale, size: tuple[int, int]) -> str:
    """Grid lines from side to side, each with its value."""
    width, height = size
    values = ticks(low, high, max(3, (height - TOP - BOTTOM) // 50))
    apart = values[1] - values[0] if len(values) > 1 else 0.01
    parts = []
    for value in values:
        at = TOP + float(to_y(value))
        label = _y_label(value, apart)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(parts)


def _x_axis(x: str, high: float, to_x: Scale, size: tuple[int, int]) -> str:
    """The line at the bottom, its marks with their values, and what it counts."""
    width, height = size
    bottom, right = height - BOTTOM, width - RIGHT
    unit_name, unit = "", 1.0
    if x == "seconds":
        unit_name, unit = next((name, unit) for name, unit, least in TIME_UNITS if high >= least * unit)
    parts = [f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>']
    for value in ticks(0.0, high / unit, max(3, (right - LEFT) // 110)):
        at = LEFT + float(to_x(value * unit))
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{short(value)}</text>')
    title = AXIS_TITLES[x] + unit_name
    parts.append(f'<text class="title" x="{right}" y="{height - 5}" text-anchor="end">{title}</text>')
    return "".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """The linear map that takes `low` to `start` and `high` to `end`."""
    factor = (end - start) / (high - low)
    return lambda value: np.asarray(start + (np.asarray(value) - low) * factor)


def _polyline(line: Line, to_x: Scale, to_y: Scale, most_points: int) -> str:
    points = thinned(line.series, most_points)
    text = " ".join(f"{px:.1f},{py:.2f}" for px, py in zip(to_x(points.x), to_y(points.y), strict=True))
    name = "" if line.kind == "raw" else f' data-name="{escaped(line.label)}"'
    return f'<polyline class="{line.kind} c{line.colour}"{name} points="{text}"/>'


def _marks(line: Line, to_x: Scale, to_y: Scale, plot_height: float) -> str:
    """A dot a point, outside the nested <svg> so that those at its edge stay round."""
    pairs = zip(to_x(line.series.x), to_y(line.series.y), strict=True)
    return "".join(
        f'<circle class="c{line.colour}" cx="{LEFT + px:.1f}" cy="{TOP + py:.1f}" r="3.2"/>'
        for px, py in pairs
        if 0 <= py <= plot_height
    )


def _y_label(value: float, apart: float) -> str:
    """A value with the digits that tell it from a neighbour `apart` from it, and no more than the margin holds."""
    if abs(value) < 1e-9 * apart:
        return "0"
    if abs(value) >= 1000:
        return short(value)
    if apart < 0.001:
        return f"{value:.2g}" if abs(value) >= 0.001 else f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return f"{value:.{max(0, -math.floor(math.log10(apart) + 1e-9))}f}"
