"""Metrics records as curves: picked out of the records, smoothed, thinned for drawing, and the range to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

SETTLING = 0.02  # share of a run whose losses do not stretch the picture: they fall from ln(vocabulary) within it


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
    """At most about `most` points that look the same when drawn: of each stretch, its lowest and its highest."""
    n = len(series)
    if n <= most:
        return series
    kept = [0, n - 1]
    for stretch in np.array_split(np.arange(n), max(1, most // 2)):
        kept += [stretch[np.argmin(series.y[stretch])], stretch[np.argmax(series.y[stretch])]]
    order = np.unique(kept)
    return Series(series.x[order], series.y[order])


def loss_range(runs: Sequence[RunCurves], field: str = "loss") -> tuple[float, float] | None:
    """The losses worth showing: those after the first moments, all but the rarest spikes. None without any loss."""
    values = []
    for run in runs:
        train, valid = run.series("train", field), run.series("valid", field)
        if len(train):
            settled = train.y[int(SETTLING * len(train)) :]
            values.append(np.quantile(settled, [0.0, 0.998]))
        if len(valid):
            start = max(series.x[-1] for series in (train, valid) if len(series)) * SETTLING
            late = valid.y[valid.x >= start]
            values.append(late if len(late) else valid.y)
    if not values:
        return None
    everything = np.concatenate(values)
    low, high = float(everything.min()), float(everything.max())
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def range_from_zero(lines: Sequence[Series]) -> tuple[float, float]:
    """From 0 to a little above all but the rarest spikes of positive figures."""
    top = max((float(np.quantile(line.y, 0.998)) for line in lines if len(line)), default=0.0)
    return 0.0, 1.1 * top or 1.0


def _is_number(record: Mapping[str, Any], name: str) -> bool:
    value = record.get(name)
    return isinstance(value, int | float) and math.isfinite(value)
