"""The confusion matrix as the report draws it: which labels have a row, what they are called, how cells are shaded.

Rows are true labels, columns predicted ones. A cell's shade is its share of the row, so that rare labels are as easy to
read as frequent ones; its number is the count.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acorn.report.formats import printable

MAX_LABELS = 50
"""Rows and columns of a picture. Of more labels, those with the fewest mistakes share one row and column."""
EMPTY = "(empty)"
ELLIPSIS = "…"


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix to be drawn.

    Attributes:
        labels: the names of rows and columns.
        counts: (labels, labels).
        merged: how many labels stand together in the last row and column; 0: each has its own.
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    merged: int = 0

    @property
    def support(self) -> NDArray[np.int64]:
        """Examples of each row."""
        return self.counts.sum(axis=1)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Each count as a share of its row; 0 in a row without examples."""
        return np.asarray(self.counts / np.maximum(self.support, 1)[:, None])


def matrix_of(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Matrix:
    """The matrix to draw, of `MAX_LABELS` rows and columns at most.

    Raises:
        ValueError: `confusion` does not have a row and a column for each label.
    """
    counts = np.asarray(confusion, dtype=np.int64)
    if counts.shape != (len(labels), len(labels)) or not len(labels):
        raise ValueError(f"a confusion matrix of shape {counts.shape} does not fit {len(labels)} labels")
    if len(labels) <= MAX_LABELS:
        return Matrix(tuple(labels), counts)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    own = np.sort(np.argsort(-mistakes, kind="stable")[: MAX_LABELS - 1])
    group = np.full(len(labels), MAX_LABELS - 1)
    group[own] = np.arange(MAX_LABELS - 1)
    merged = np.zeros((MAX_LABELS, MAX_LABELS), dtype=np.int64)
    np.add.at(merged, (group[:, None], group[None, :]), counts)
    others = len(labels) - len(own)
    return Matrix((*(labels[at] for at in own), f"{others:,} other labels"), merged, others)


def short_names(labels: Sequence[str], longest: int, can_draw: Callable[[str], bool] = lambda _: True) -> list[str]:
    """Names for an axis, all different: on one line, the middle of long ones left out.

    Args:
        longest: in letters; Chinese, Japanese and Korean characters count twice.
        can_draw: whether there is a glyph for a character; others are written as their escapes, such as `\\u5783`.
    """
    pieces = [_pieces(label, can_draw) for label in labels]
    names = [_shortened(its, longest) for its in pieces]
    for same in _repeated(names):  # what they begin with alike is left out, then
        if len({tuple(pieces[at]) for at in same}) == 1:
            continue
        columns = zip(*(pieces[at] for at in same), strict=False)
        alike = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
        for at in same:
            names[at] = _shortened([ELLIPSIS, *pieces[at][alike:]], longest)
    for same in _repeated(names):
        for at in same:
            names[at] = f"{at + 1}: {names[at]}"
    return names


def width_of(text: str) -> int:
    """Columns that a text takes: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text
    )


def _repeated(names: Sequence[str]) -> list[list[int]]:
    """The places of each name that occurs more than once."""
    places: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        places.setdefault(name, []).append(at)
    return [its for its in places.values() if len(its) > 1]


def _pieces(label: str, can_draw: Callable[[str], bool]) -> list[str]:
    """What a label is drawn as, a piece for each character."""
    shown = " ".join(printable(label).split()) or EMPTY
    return [letter if can_draw(letter) else letter.encode("unicode_escape").decode("ascii") for letter in shown]


def _shortened(pieces: Sequence[str], longest: int) -> str:
    """Pieces from both ends as far as they fit, with an ellipsis between: names of one family often end differently."""
    whole = "".join(pieces)
    if width_of(whole) <= longest:
        return whole
    left, right, used = 0, len(pieces), width_of(ELLIPSIS)
    while left < right:
        at = left if left <= len(pieces) - right else right - 1
        used += width_of(pieces[at])
        if used > longest:
            break
        left, right = (left + 1, right) if at == left else (left, right - 1)
    # A mark alone would be drawn on the ellipsis.
    while right < len(pieces) and unicodedata.combining(pieces[right][0]):
        right += 1
    return "".join([*pieces[:left], ELLIPSIS, *pieces[right:]])
