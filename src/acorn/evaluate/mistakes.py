"""A classifier's most confident mistakes, which are often wrong labels in the data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from acorn.evaluate.labels import THRESHOLD
from acorn.evaluate.predictions import label_ids, label_table, named, probability_table

SHOWN = 20


def confident_mistakes(
    texts: Sequence[str], true: Sequence[str], probabilities: ArrayLike, labels: Sequence[str], limit: int = SHOWN
) -> list[dict[str, Any]]:
    """Wrong predictions, the most confident first; of equal ones, in the order of the examples.

    Args:
        texts: what was classified, one for each example.
        true, probabilities, labels: as `label_figures` takes them.

    Returns:
        for each `example` (its number, from 0), `text`, `true`, `predicted`, `probability` (of the predicted label) and
        `probability_of_true`.

    Raises:
        InputError: there is no example, or it has a label that is none of `labels`.
        DamageError: a probability is not finite.
    """
    expected = label_ids(true, labels)
    table = probability_table(probabilities, len(expected), len(labels), exclusive=True)
    predicted, confidence = table.argmax(axis=1), table.max(axis=1)
    wrong = np.flatnonzero(predicted != expected)
    ranked = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit].tolist()
    return [
        {
            "example": number,
            "text": texts[number],
            "true": true[number],
            "predicted": labels[predicted[number]],
            "probability": float(confidence[number]),
            "probability_of_true": float(table[number, expected[number]]),
        }
        for number in ranked
    ]


def confident_several_mistakes(
    texts: Sequence[str],
    true: Sequence[Collection[str]],
    probabilities: ArrayLike,
    labels: Sequence[str],
    limit: int = SHOWN,
) -> list[dict[str, Any]]:
    """Wrong decisions about one of several labels, the most confident first; at most one for each example.

    Returns:
        for each `example`, `text`, `true` and `predicted` (lists of labels), `label` (the most confident
        wrong decision) and `probability` (of that label: near 1 if it was predicted wrongly, near 0 if it was missed).

    Raises:
        InputError: there is no example, or it has a label that is none of `labels`.
        DamageError: a probability is not finite.
    """
    expected = label_table(true, labels)
    table = probability_table(probabilities, len(expected), len(labels), exclusive=False)
    predicted = table > THRESHOLD
    confidence = np.where(predicted == expected, -1.0, np.where(predicted, table, 1.0 - table))
    surest = confidence.max(axis=1, initial=-1.0)
    wrong = np.flatnonzero(surest >= 0)
    mistakes = []
    for number in wrong[np.argsort(-surest[wrong], kind="stable")][:limit].tolist():
        column = int(confidence[number].argmax())
        mistakes.append(
            {
                "example": number,
                "text": texts[number],
                "true": named(expected[number], labels),
                "predicted": named(predicted[number], labels),
                "label": labels[column],
                "probability": float(table[number, column]),
            }
        )
    return mistakes
