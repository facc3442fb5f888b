"""Figures of predicted labels, one or several for each example: accuracy, F1, confusion and calibration.

An undefined figure is None, not 0 or NaN, and a sentence in `notes` says why. F1 is 2 TP / (2 TP + FP + FN), so it is 0
and not undefined for a label that has examples and is never predicted. Macro F1 is the mean over the
labels whose F1 is defined: those that an example has or a prediction names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acorn.evaluate.calibration import calibration
from acorn.evaluate.predictions import label_ids, label_table, named, probability_table, some_of

THRESHOLD = 0.5
"""With several labels, one is predicted if its probability is above this, so if its logit is above 0."""

SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"
"""`problem_type`, as transformers names them."""

Counts = NDArray[np.int64]


def label_figures(true: Sequence[str], probabilities: ArrayLike, labels: Sequence[str]) -> dict[str, Any]:
    """Figures of a classifier that gives each example one label: the most likely one, of equal ones the first.

    Args:
        true: the label of each example.
        probabilities: (examples, labels); each row sums to 1.
        labels: the names, in the order of the columns.

    Returns:
        what `label_scores` returns, with `expected_calibration_error` and `reliability` of the predicted labels.

    Raises:
        InputError: there is no example, or it has a label that is none of `labels`.
        DamageError: a probability is not finite.
    """
    expected = label_ids(true, labels)
    table = probability_table(probabilities, len(expected), len(labels), exclusive=True)
    predicted = table.argmax(axis=1)
    return _scores(expected, predicted, labels) | calibration(table.max(axis=1), predicted == expected)


def label_scores(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Figures of predicted labels, without probabilities.

    Returns:
        `task`, `problem_type`, `examples`, `accuracy`, `macro_f1`, `labels`, `per_label` (label -> `precision`,
        `recall`, `f1`, `support`), `confusion` (rows: true label, columns: predicted), `notes`.

    Raises:
        InputError: there is no example, or a label is none of `labels`.
    """
    return _scores(label_ids(true, labels), label_ids(predicted, labels), labels)


def several_label_figures(
    true: Sequence[Collection[str]], probabilities: ArrayLike, labels: Sequence[str]
) -> dict[str, Any]:
    """Figures of a classifier that gives each example any number of labels: those with a probability above 0.5.

    Args:
        true: the labels of each example, which may have none.
        probabilities: (examples, labels), independent of each other.
        labels: the names, in the order of the columns.

    Returns:
        what `several_label_scores` returns, with `expected_calibration_error` and `reliability` over every label of
        every example: of the labels with a probability of 30 %, about 30 % should be true.

    Raises:
        InputError: there is no example, or it has a label that is none of `labels`.
        DamageError: a probability is not finite.
    """
    expected = label_table(true, labels)
    table = probability_table(probabilities, len(expected), len(labels), exclusive=False)
    return _several_scores(expected, table > THRESHOLD, labels) | calibration(table.ravel(), expected.ravel())


def several_label_scores(
    true: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> dict[str, Any]:
    """Figures of predicted sets of labels, without probabilities.

    Returns:
        `task`, `problem_type`, `examples`, `micro_f1`, `micro_precision`, `micro_recall`, `macro_f1`, `subset_accuracy`
        (share of examples with every label right), `label_names`, `labels` (those predicted, a list for each example),
        `per_label` as in `label_scores`, `notes`.

    Raises:
        InputError: there is no example, or a label is none of `labels`.
    """
    return _several_scores(label_table(true, labels), label_table(predicted, labels), labels)


def _scores(expected: Counts, predicted: Counts, labels: Sequence[str]) -> dict[str, Any]:
    size = len(labels)
    confusion = np.bincount(expected * size + predicted, minlength=size * size).reshape(size, size)
    hits = confusion.diagonal()
    per_label, macro, notes = _per_label(hits, confusion.sum(axis=1), confusion.sum(axis=0), labels)
    return {
        "task": "classify",
        "problem_type": SINGLE,
        "examples": len(expected),
        "accuracy": float(hits.sum() / len(expected)),
        "macro_f1": macro,
        "labels": list(labels),
        "per_label": per_label,
        "confusion": confusion.tolist(),
        "notes": notes,
    }


def _several_scores(expected: NDArray[np.bool_], predicted: NDArray[np.bool_], labels: Sequence[str]) -> dict[str, Any]:
    hits, support, guesses = ((expected & predicted).sum(axis=0), expected.sum(axis=0), predicted.sum(axis=0))
    per_label, macro, notes = _per_label(hits, support, guesses, labels)
    found, there, given = int(hits.sum()), int(support.sum()), int(guesses.sum())
    if not there:
        notes.append("No example has any label: micro recall is undefined" + (", and micro F1." if not given else "."))
    if not given:
        notes.append("No label was predicted for any example: micro precision is undefined.")
    return {
        "task": "classify",
        "problem_type": SEVERAL,
        "examples": len(expected),
        "micro_f1": _ratio(2 * found, there + given),
        "micro_precision": _ratio(found, given),
        "micro_recall": _ratio(found, there),
        "macro_f1": macro,
        "subset_accuracy": float((expected == predicted).all(axis=1).mean()),
        "label_names": list(labels),
        "labels": [named(row, labels) for row in predicted],
        "per_label": per_label,
        "notes": notes,
    }


def _per_label(
    hits: Counts, support: Counts, guesses: Counts, labels: Sequence[str]
) -> tuple[dict[str, Any], float | None, list[str]]:
    """Precision, recall and F1 of each label, macro F1, and sentences on what is undefined.

    Args:
        hits: number of correct predictions of each label (L,).
        support: number of examples with the label (L,).
        guesses: number of predictions of the label (L,).
    """
    per_label = {
        label: {
            "precision": _ratio(hit, guessed),
            "recall": _ratio(hit, there),
            "f1": _ratio(2 * hit, there + guessed),
            "support": there,
        }
        for label, hit, there, guessed in zip(labels, hits.tolist(), support.tolist(), guesses.tolist(), strict=True)
    }
    defined = [figures["f1"] for figures in per_label.values() if figures["f1"] is not None]
    macro = sum(defined) / len(defined) if defined else None
    return per_label, macro, _undefined(per_label)


def _undefined(per_label: dict[str, Any]) -> list[str]:
    """A sentence for each kind of figure that is undefined, which names the labels."""
    unseen, unused, absent = [], [], []
    for label, figures in per_label.items():
        if figures["f1"] is None:
            absent.append(label)
        elif figures["recall"] is None:
            unseen.append(label)
        elif figures["precision"] is None:
            unused.append(label)
    notes = []
    if absent:
        notes.append(
            f"{_the(absent)} {_are(absent)} neither among these examples nor predicted: precision, recall and F1 are "
            "undefined and left out of macro F1."
        )
    if unseen:
        notes.append(f"{_the(unseen)} {_are(unseen)} predicted, but no example has {_it(unseen)}: recall is undefined.")
    if unused:
        notes.append(f"{_the(unused)} {_are(unused)} never predicted: precision is undefined, F1 is 0.")
    return notes


def _the(labels: Sequence[str]) -> str:
    return f"{'The label' if len(labels) == 1 else 'The labels'} {some_of(labels)}"


def _are(labels: Sequence[str]) -> str:
    return "is" if len(labels) == 1 else "are"


def _it(labels: Sequence[str]) -> str:
    return "it" if len(labels) == 1 else "them"


def _ratio(part: int, whole: int) -> float | None:
    """The ratio; None if the denominator is 0."""
    return part / whole if whole else None
