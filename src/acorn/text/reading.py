"""What one pass over text counts, and what it does about bad bytes and rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

from acorn.counting import counted
from acorn.errors import InputError

SKIP_HINT = 'correct it, or set data.errors = "skip" to leave such rows out and count them'
ERRORS_HINT = 'set data.errors to "replace" (U+FFFD in its place) or "skip" (the document is left out)'
MOST_NAMED = 10
"""Files or columns that one line of the terminal names; the others are counted."""

_MOST_COLUMNS = 100
"""Names that are kept of one source: an object of JSON can have a new one on every line."""


@dataclass
class SplitCounts:
    """Facts of one whole pass over a split. Rows that never became a document are counted with training."""

    documents: int = 0
    bytes: int = 0  # UTF-8 bytes of the documents' original text; a byte that cannot be decoded is one
    words: int = 0  # words of the original text, one end-of-line a line included
    dropped_empty: int = 0  # rows of nothing but white space
    dropped_duplicates: int = 0  # documents equal to an earlier one; none in held-out text that has its own source
    dropped_overlap: int = 0  # training documents that are also held out, under data.overlap = "drop"
    dropped_by_cleaning: int = 0  # documents that cleaning left empty
    dropped_bad: int = 0  # rows and documents left out under data.errors = "skip"
    replaced: int = 0  # documents with U+FFFD under data.errors = "replace"
    with_bom: int = 0  # files that began with a byte order mark; it is dropped
    with_crlf: int = 0  # documents with CRLF line ends; they are kept
    with_nul: int = 0  # documents with a NUL character; it is kept

    def __add__(self, other: SplitCounts) -> SplitCounts:
        mine, theirs = asdict(self), asdict(other)
        return SplitCounts(**{name: mine[name] + theirs[name] for name in mine})

    def dropped(self) -> str:
        """What was left out and why, in words; empty where nothing was."""
        kinds = {
            "empty": self.dropped_empty,
            "duplicates": self.dropped_duplicates,
            "also held out": self.dropped_overlap,
            "left empty by cleaning": self.dropped_by_cleaning,
            "bad": self.dropped_bad,
        }
        return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)


def names_of(names: Iterable[str]) -> str:
    """The first names of a longer list, and how many follow."""
    every = list(names)
    more = f" and {len(every) - MOST_NAMED:,} more" if len(every) > MOST_NAMED else ""
    return ", ".join(every[:MOST_NAMED]) + more


@dataclass
class Reading:
    """The policy for bad text (`data.errors`), the counts of one pass, and the columns that it does not read.

    Attributes:
        ignored: the columns beside the text -> the first file or dataset that has them.
    """

    errors: Literal["strict", "replace", "skip"]
    counts: SplitCounts = field(default_factory=SplitCounts)
    ignored: dict[str, str] = field(default_factory=dict)

    def refuse(self, what: str, where: str, fix: str = SKIP_HINT) -> None:
        """A row that cannot be used: left out and counted under `skip`.

        Raises:
            InputError: under `strict` and `replace` (there is no character to replace).
        """
        if self.errors != "skip":
            raise InputError(what, where=where, fix=fix)
        self.counts.dropped_bad += 1

    def sees(self, columns: Iterable[str], text_field: str, source: str) -> None:
        """Notes the columns of a source that are not its text."""
        for name in columns:
            if name != text_field and name not in self.ignored and len(self.ignored) < _MOST_COLUMNS:
                self.ignored[name] = source


class Losses:
    """Which files and datasets bad text was left out of or replaced in, over one pass.

    Args:
        readings: those whose counts belong to the split.
    """

    def __init__(self, *readings: Reading) -> None:
        self._readings = readings
        self._before = (0, 0, 0)
        self._bad: list[str] = []
        self._replaced: list[str] = []

    def source_ends(self, name: str) -> None:
        """All rows of the source `name` have been read."""
        now = self._totals()
        kept, bad, replaced = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        if bad:
            self._bad.append(f"{bad:,} of {name}" if kept else f"all of {name}")
        if replaced:
            self._replaced.append(f"{replaced:,} of {name}")

    def told(self) -> str:
        """What was left out and replaced, in words; empty where nothing was."""
        _, bad, replaced = self._totals()
        parts = []
        if bad:
            parts.append(f"{counted(bad, 'bad row')} {'was' if bad == 1 else 'were'} left out: {names_of(self._bad)}")
        if replaced:
            parts.append(
                f"{counted(replaced, 'document')} {'has' if replaced == 1 else 'have'} U+FFFD for bytes that could not "
                f"be read: {names_of(self._replaced)}"
            )
        return "; ".join(parts)

    def _totals(self) -> tuple[int, int, int]:
        """Good documents, also those left out for another reason; bad rows; documents with U+FFFD."""
        counts = [reading.counts for reading in self._readings]
        kept = sum(c.documents + c.dropped_duplicates + c.dropped_overlap + c.dropped_by_cleaning for c in counts)
        return kept, sum(c.dropped_bad for c in counts), sum(c.replaced for c in counts)
