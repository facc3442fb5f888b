"""Calibration of probabilities: of the predictions with 80 %, about 80 % should be right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Number of bins, of equal width. A bin contains its upper bound and not its lower one (Guo et al. 2017); the first
also contains 0."""


def calibration(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> dict[str, Any]:
    """The reliability curve and the expected calibration error.

    Args:
        confidence: the probability of each prediction (N,), between 0 and 1; N is at least 1.
        correct: whether it was right (N,).

    Returns:
        `expected_calibration_error`: the distance between accuracy and mean confidence of a bin, averaged over the
        predictions; `reliability`: for each bin `from`, `to`, `predictions`, `confidence` (mean) and `accuracy`, the
        last two None in a bin without predictions.
    """
    bounds = np.arange(1, BINS) / BINS
    bins = np.searchsorted(bounds, confidence, side="left")
    counts = np.bincount(bins, minlength=BINS)
    summed = np.bincount(bins, weights=confidence, minlength=BINS)
    right = np.bincount(bins, weights=correct.astype(np.float64), minlength=BINS)
    reliability = [
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "predictions": int(counts[number]),
            "confidence": float(summed[number] / counts[number]) if counts[number] else None,
            "accuracy": float(right[number] / counts[number]) if counts[number] else None,
        }
        for number in range(BINS)
    ]
    error = float(np.abs(right - summed).sum() / len(confidence))
    return {"expected_calibration_error": error, "reliability": reliability}
