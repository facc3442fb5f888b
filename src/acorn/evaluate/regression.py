"""Figures of predicted values: their errors, and their correlation with the true values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.errors import DamageError, InputError
from acorn.evaluate.predictions import nothing_to_score

Values = NDArray[np.float64]


def value_figures(true: Sequence[float], predicted: Sequence[float]) -> dict[str, Any]:
    """Figures of regression, in the unit of the labels. An undefined figure is None, and a sentence in `notes` says
    why.

    Returns:
        `task`, `examples`, `mean_absolute_error`, `rmse` (root of the mean squared error), `pearson` (correlation of
        the values), `spearman` (correlation of their ranks; equal values share the mean of their ranks), `notes`.

    Raises:
        InputError: there is no example, or a true value is not finite.
        DamageError: a predicted value is not finite.
    """
    labels, values = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if labels.shape != values.shape or labels.ndim != 1:
        raise ValueError(f"{labels.shape} labels and {values.shape} predictions do not match")
    if not len(labels):
        raise nothing_to_score()
    check_labels(labels)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DamageError(
            f"The model gives example {row + 1:,} a value that is not a finite number.",
            fix="acorn verify checks the model's files; --checkpoint best or an earlier step may be intact",
        )
    reason = _no_correlation(labels, values)
    off = np.abs(values - labels)
    # Relative to the largest, because squares of values above 1e154 overflow a float.
    largest = float(off.max())
    share = off / largest if largest else off
    return {
        "task": "regress",
        "problem_type": "regression",
        "examples": len(labels),
        "mean_absolute_error": largest * float(share.mean()),
        "rmse": largest * float(np.sqrt(np.mean(share**2))),
        "pearson": None if reason else _correlation(labels, values),
        "spearman": None if reason else _correlation(_ranks(labels), _ranks(values)),
        "notes": [f"{reason}: the correlations are undefined."] if reason else [],
    }


def check_labels(labels: Values) -> None:
    """Raises InputError if a label is not finite."""
    if not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels))[0])
        raise InputError(f"The label of example {row + 1:,} is not a finite number.", fix="leave this example out")


def _no_correlation(labels: Values, values: Values) -> str:
    """The reason why there is no correlation; empty if there is one."""
    if len(labels) == 1:
        return "There is a single example"
    if labels.min() == labels.max():
        return "All examples have the same label"
    if values.min() == values.max():
        return "The model predicts the same value for every example"
    return ""


def _correlation(a: Values, b: Values) -> float:
    """Pearson's correlation of two rows of values, neither of which is constant."""
    a, b = _centered(a), _centered(b)
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _centered(values: Values) -> Values:
    """The values with mean 0 and a size near 1: this changes no correlation, and squares do not overflow."""
    around = values - (values.min() / 2 + values.max() / 2)
    around /= np.abs(around).max()
    return np.asarray(around - around.mean())


def _ranks(values: Values) -> Values:
    """The rank of each value, from 1; equal values have the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group])
