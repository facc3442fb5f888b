"""What one pass over text counts, and what it does about bad bytes and rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from acorn.errors import InputError

SKIP_HINT = 'correct it, or set data.errors = "skip" to leave such rows out and count them'
UTF8_HINT = (
    'convert the file to UTF-8, or set data.errors to "replace" (U+FFFD in its place) '
    'or "skip" (the document is left out)'
)


@dataclass
class SplitCounts:
    """Facts of one whole pass over a split. Rows that never became a document are counted with training."""

    documents: int = 0
    bytes: int = 0  # UTF-8 bytes of the documents' original text
    words: int = 0  # words of the original text, one end-of-line a line included
    dropped_empty: int = 0  # rows of nothing but white space
    dropped_duplicates: int = 0  # documents equal to an earlier one, in training
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


@dataclass
class Reading:
    """The policy for bad text (`data.errors`) and the counts of one pass."""

    errors: Literal["strict", "replace", "skip"]
    counts: SplitCounts = field(default_factory=SplitCounts)

    def refuse(self, what: str, where: str, mend: str = SKIP_HINT) -> None:
        """A row that cannot be used: left out and counted under `skip`.

        Raises:
            InputError: under `strict` and `replace` (there is no character to replace).
        """
        if self.errors != "skip":
            raise InputError(what, where=where, mend=mend)
        self.counts.dropped_bad += 1

    def mended(self, error: UnicodeDecodeError, where: str) -> str | None:
        """What stands for text that is not UTF-8: with U+FFFD under `replace`, None (left out) under `skip`.

        Args:
            where: the place of the offending byte.

        Raises:
            InputError: under `strict`.
        """
        raw: bytes = error.object
        if self.errors == "replace":
            self.counts.replaced += 1
            return raw.decode("utf-8", "replace")
        utf16 = " (the text begins like UTF-16)" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        self.refuse(f"This text is not UTF-8: byte 0x{raw[error.start]:02X}, {error.reason}{utf16}.", where, UTF8_HINT)
        return None
