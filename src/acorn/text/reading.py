"""The counts of one pass over text, and the policy for bad bytes and rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

from acorn.counting import counted
from acorn.errors import InputError

SKIP_HINT = "correct it, or set data.errors=skip to drop and count such rows"
ERRORS_HINT = 'set data.errors to "replace" (puts U+FFFD in its place) or "skip" (drops the document)'
MAX_NAMES = 10
"""The largest number of files or columns that one message names; the others are counted."""

_MAX_COLUMNS = 100
"""The largest number of column names remembered: in a .jsonl each line can have new ones."""


@dataclass
class SplitCounts:
    """The counts of one complete pass over a split. Rows that never became a document are counted with training."""

    documents: int = 0
    bytes: int = 0  # UTF-8 bytes of the documents' original text; a byte that cannot be decoded counts as one
    words: int = 0  # words of the original text, plus one end-of-line per line
    dropped_empty: int = 0  # rows that contain only white space
    dropped_duplicates: int = 0  # documents equal to an earlier one; 0 for held-out text with its own source
    dropped_overlap: int = 0  # training documents that are also held out, under data.overlap = "drop"
    dropped_by_cleaning: int = 0  # documents that cleaning left empty
    dropped_bad: int = 0  # rows and documents dropped under data.errors = "skip"
    replaced: int = 0  # documents with U+FFFD under data.errors = "replace"
    with_bom: int = 0  # files that begin with a byte order mark, which is removed
    with_crlf: int = 0  # documents with CRLF line ends, which are kept
    with_nul: int = 0  # documents with a NUL character, which is kept

    def __add__(self, other: SplitCounts) -> SplitCounts:
        mine, theirs = asdict(self), asdict(other)
        return SplitCounts(**{name: mine[name] + theirs[name] for name in mine})

    def dropped(self) -> str:
        """The numbers of dropped rows and documents with the reasons; empty if none were dropped."""
        kinds = {
            "empty": self.dropped_empty,
            "duplicates": self.dropped_duplicates,
            "also held out": self.dropped_overlap,
            "left empty by cleaning": self.dropped_by_cleaning,
            "bad": self.dropped_bad,
        }
        return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)


def names_of(names: Iterable[str]) -> str:
    """The first names of a list, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - MAX_NAMES:,} more" if len(every) > MAX_NAMES else ""
    return ", ".join(every[:MAX_NAMES]) + more


@dataclass
class Reading:
    """The policy for bad text (`data.errors`), the counts of one pass, and the columns it does not read.

    Attributes:
        ignored: the name of each column that is not the text -> the first file or dataset that has it.
    """

    errors: Literal["strict", "replace", "skip"]
    counts: SplitCounts = field(default_factory=SplitCounts)
    ignored: dict[str, str] = field(default_factory=dict)

    def refuse(self, what: str, where: str, fix: str = SKIP_HINT) -> None:
        """Handles a row that cannot be used: under `skip` it is dropped and counted.

        Raises:
            InputError: under `strict`, and under `replace`, since there is no character to replace.
        """
        if self.errors != "skip":
            raise InputError(what, where=where, fix=fix)
        self.counts.dropped_bad += 1

    def sees(self, columns: Iterable[str], text_field: str, source: str) -> None:
        """Remembers the columns of a source that are not its text."""
        for name in columns:
            if name != text_field and name not in self.ignored and len(self.ignored) < _MAX_COLUMNS:
                self.ignored[name] = source


class Losses:
    """Tracks, during one pass, in which files and datasets bad text was dropped or replaced.

    Args:
        readings: those whose counts belong to the split.
    """

    def __init__(self, *readings: Reading) -> None:
        self._readings = readings
        self._before = (0, 0, 0)
        self._bad: list[str] = []
        self._replaced: list[str] = []

    def source_ends(self, name: str) -> None:
        """To be called when all rows of the source `name` have been read."""
        now = self._totals()
        kept, bad, replaced = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        if bad:
            self._bad.append(f"{bad:,} of {name}" if kept else f"all of {name}")
        if replaced:
            self._replaced.append(f"{replaced:,} of {name}")

    def summary(self) -> str:
        """What was dropped and replaced, in words; empty if nothing was."""
        _, bad, replaced = self._totals()
        parts = []
        if bad:
            parts.append(f"{counted(bad, 'bad row')} {'was' if bad == 1 else 'were'} dropped: {names_of(self._bad)}")
        if replaced:
            parts.append(
                f"{counted(replaced, 'document')} {'has' if replaced == 1 else 'have'} U+FFFD for bytes that cannot "
                f"be decoded: {names_of(self._replaced)}"
            )
        return "; ".join(parts)

    def _totals(self) -> tuple[int, int, int]:
        """The numbers of good documents (even if dropped for another reason), bad rows, documents with U+FFFD."""
        counts = [reading.counts for reading in self._readings]
        kept = sum(c.documents + c.dropped_duplicates + c.dropped_overlap + c.dropped_by_cleaning for c in counts)
        return kept, sum(c.dropped_bad for c in counts), sum(c.replaced for c in counts)
