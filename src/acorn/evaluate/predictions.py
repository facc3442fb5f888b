"""True labels and probabilities in arrays, checked before figures are computed from them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acorn.errors import DamageError, InputError

SUM_TOLERANCE = 1e-2
"""Largest distance from 1 of the sum of an example's probabilities: in bf16 they have two to three digits."""
NAMED = 5
"""A sentence names at most this many labels, and counts the others."""


def nothing_to_score() -> InputError:
    """The error for figures without an example."""
    return InputError("There is nothing to score (0 examples).", fix="name data that holds labeled examples")


def label_ids(true: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """The index of each example's label (N,).

    Raises:
        InputError: there is no example, or a label is none of `labels`.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    if not len(true):
        raise nothing_to_score()
    try:
        return np.array([numbers[label] for label in true], dtype=np.int64)
    except KeyError as error:
        raise _unknown_label(error.args[0], labels) from None


def label_table(true: Sequence[Collection[str]], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which of several labels each example has (N, L).

    Raises:
        InputError: there is no example, or a label is none of `labels`.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    if not len(true):
        raise nothing_to_score()
    table = np.zeros((len(true), len(labels)), dtype=np.bool_)
    for row, found in zip(table, true, strict=True):
        for label in found:
            if label not in numbers:
                raise _unknown_label(label, labels)
            row[numbers[label]] = True
    return table


def named(row: NDArray[np.bool_], labels: Sequence[str]) -> list[str]:
    """The labels in one row of a `label_table`."""
    return [label for label, has_it in zip(labels, row.tolist(), strict=True) if has_it]


def probability_table(probabilities: ArrayLike, examples: int, labels: int, *, exclusive: bool) -> NDArray[np.float64]:
    """Probabilities as an array (N, L) between 0 and 1.

    Args:
        exclusive: the labels exclude each other, so that a row sums to 1.

    Raises:
        DamageError: a probability is not finite, which happens with damaged weights.
        ValueError: the shape is wrong, or the values are not probabilities.
    """
    table = np.asarray(probabilities, dtype=np.float64)
    if table.shape != (examples, labels):
        raise ValueError(f"probabilities have the shape {table.shape}, not ({examples}, {labels})")
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise DamageError(
            f"The model gives example {row + 1:,} a probability that is not a finite number.",
            fix="acorn verify checks the model's files; --checkpoint best or an earlier step may be intact",
        )
    if table.size and (table.min() < -SUM_TOLERANCE or table.max() > 1 + SUM_TOLERANCE):
        raise ValueError(f"probabilities are between 0 and 1, not {table.min()} to {table.max()}")
    if exclusive and not np.allclose(table.sum(axis=1), 1, atol=SUM_TOLERANCE, rtol=0):
        raise ValueError("the probabilities of an example must sum to 1")
    return np.clip(table, 0.0, 1.0)


def some_of(names: Sequence[str]) -> str:
    """Names in a sentence, the first ones and how many more: `"a", "b" and 3 more`."""
    shown = [f'"{name}"' for name in names[:NAMED]]
    if len(names) > NAMED:
        return f"{', '.join(shown)} and {len(names) - NAMED:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _unknown_label(label: str, labels: Sequence[str]) -> InputError:
    return InputError(
        f'The label "{label}" is none that the model was trained on.',
        fix=f"use the labels {some_of(labels)}, or finetune with examples of this one",
    )
