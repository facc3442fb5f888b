"""Metrics records as curves: picked out of the records, smoothed, thinned for drawing, and the range to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

STEEP_SHARE = 0.02  # of a run: its beginning, in which losses fall steeply from ln(vocabulary)
MIN_HEIGHT = 1 / 3  # of the chart, for the losses after that; if the steep part would leave less, it is cut off


@dataclass(frozen=True)
class Series:
    """Points of one curve, `x` and `y` of equal length (N,), N may be 0."""

    x: Values
    y: Values

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class RunCurves:
    """The metrics of one run, by split, in the order they were written."""

    name: str
    train: Sequence[Mapping[str, Any]]
    valid: Sequence[Mapping[str, Any]]

    @classmethod
    def from_metrics(cls, name: str, metrics: Sequence[Mapping[str, Any]]) -> RunCurves:
        """Splits the records of `read_metrics`."""
        train = [record for record in metrics if record["split"] == "train"]
        valid = [record for record in metrics if record["split"] == "valid"]
        return cls(name, train, valid)

    def series(self, split: str, field: str, x: str = "tokens") -> Series:
        """The curve of `field` ("loss", "lr", ...) over `x` ("tokens", "seconds" or "step").

        Records that lack one of the two are left out.
        """
        records = self.train if split == "train" else self.valid
        both = [record for record in records if _is_number(record, x) and _is_number(record, field)]
        points = np.array([(record[x], record[field]) for record in both], dtype=np.float64).reshape(-1, 2)
        return Series(points[:, 0], points[:, 1])


def smoothed(series: Series) -> Series:
    """Mean over a window of about 2 % of the points, centred, so that the curve does not lag behind.

    At the start, where a loss falls steeply, the window shrinks evenly on both sides; at the end only on the right.
    """
    n = len(series)
    half = min(max(8, n // 100), n // 10)
    if half == 0:
        return series
    index = np.arange(n)
    left = index - np.minimum(half, index)
    right = np.minimum(n - 1, index + np.minimum(half, index))
    sums = np.concatenate([[0.0], np.cumsum(series.y)])
    return Series(series.x, (sums[right + 1] - sums[left]) / (right + 1 - left))


def thinned(series: Series, most: int) -> Series:
    """About `most` points that look the same when drawn: the lowest and the highest of each interval."""
    n = len(series)
    if n <= most:
        return series
    kept = [0, n - 1]
    for stretch in np.array_split(np.arange(n), max(1, most // 2)):
        kept += [stretch[np.argmin(series.y[stretch])], stretch[np.argmax(series.y[stretch])]]
    order = np.unique(kept)
    return Series(series.x[order], series.y[order])


def loss_range(runs: Sequence[RunCurves], field: str = "loss") -> tuple[float, float] | None:
    """The range of losses to show: all but the rarest spikes. None without any loss.

    The first losses are cut off if they would squeeze all others into the bottom of the chart; see
    `cut_off_start`.
    """
    values, firsts = [], []
    for run in runs:
        train, valid = run.series("train", field), run.series("valid", field)
        if len(train):
            settled = train.y[int(STEEP_SHARE * len(train)) :]
            values.append(np.quantile(settled, [0.0, 0.998]))
            firsts.append(float(train.y[0]))
        if len(valid):
            start = max(series.x[-1] for series in (train, valid) if len(series)) * STEEP_SHARE
            late = valid.y[valid.x >= start]
            values.append(late if len(late) else valid.y)
            firsts.append(float(valid.y[0]))
    if not values:
        return None
    everything = np.concatenate(values)
    low, high = float(everything.min()), float(everything.max())
    if high - low >= MIN_HEIGHT * (max(firsts) - low):
        high = max(high, *firsts)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def cut_off_start(runs: Sequence[RunCurves], y_range: tuple[float, float]) -> float | None:
    """The highest first loss of `runs` if it is above the chart; else None."""
    firsts = [series.y[0] for run in runs for series in (run.series("train", "loss"),) if len(series)]
    highest = float(max(firsts, default=0.0))
    return highest if highest > y_range[1] else None


def range_from_zero(lines: Sequence[Series]) -> tuple[float, float]:
    """From 0 to a little above all but the rarest spikes of positive figures."""
    top = max((float(np.quantile(line.y, 0.998)) for line in lines if len(line)), default=0.0)
    return 0.0, 1.1 * top or 1.0


def _is_number(record: Mapping[str, Any], name: str) -> bool:
    value = record.get(name)
    return isinstance(value, int | float) and math.isfinite(value)
