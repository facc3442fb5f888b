"""Draws a curve as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """`values` (at least one) as at most `width` bars; each bar is the mean of its part of the values."""
    width = min(width, len(values))
    edges = [len(values) * number // width for number in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    steps = len(BARS) - 1
    return "".join(BARS[round(steps * (mean - low) / (high - low)) if high > low else 0] for mean in means)
