"""Duplicate documents: exact repeats within one text, and training documents that are also in held-out text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from acorn.config import DataConfig
from acorn.counting import counted
from acorn.text.digests import DigestSet, digest_of


class HeldOut:
    """The distinct documents of a held-out split, and which of them a pass over training has found there too."""

    def __init__(self, documents: Iterable[bytes]) -> None:
        self._digests = DigestSet()
        self.bytes = sum(len(raw) for raw in documents if self._digests.add(digest_of(raw)))
        self.start_pass()

    def __len__(self) -> int:
        return len(self._digests)

    def start_pass(self) -> None:
        """Starts a new pass over training."""
        self._met = DigestSet()
        self.bytes_met = 0

    def meet(self, digest: bytes, n_bytes: int) -> bool:
        """Whether a training document is also held out. If so, it is counted."""
        if digest not in self._digests:
            return False
        if self._met.add(digest):
            self.bytes_met += n_bytes
        return True

    @property
    def met(self) -> int:
        """The number of distinct held-out documents found in training."""
        return len(self._met)


class OverlapFilter:
    """Decides, during one pass, which training documents are dropped because they are also held out."""

    def __init__(self, data: DataConfig, held_out: Mapping[str, HeldOut]) -> None:
        self._drop_overlap = data.overlap == "drop"
        self._held_out = tuple(held_out.values())
        for split in self._held_out:
            split.start_pass()

    def drops(self, digest: bytes, n_bytes: int) -> bool:
        # Check every split, even after a match: a document can be in both.
        hits = [split.meet(digest, n_bytes) for split in self._held_out]
        return self._drop_overlap and any(hits)


@dataclass
class RepeatCounts:
    """How many documents of a text repeat an earlier one exactly.

    Attributes:
        documents, bytes: of all documents.
        repeats, repeated_bytes: of those equal to an earlier document.
    """

    documents: int = 0
    bytes: int = 0
    repeats: int = 0
    repeated_bytes: int = 0

    @property
    def distinct(self) -> int:
        return self.documents - self.repeats

    @property
    def are_majority(self) -> bool:
        """Whether more than half of the documents are repeats."""
        return 2 * self.distinct < self.documents

    def summary(self) -> str:
        """The counts in words, as the beginning of a sentence."""
        return (
            f"{counted(self.documents, 'document')}, {self.distinct:,} of them distinct: the "
            f"{counted(self.repeats, 'exact repeat')} "
            f"({self.repeated_bytes:,} of {self.bytes:,} bytes)"
        )


class Repeats(RepeatCounts):
    """Finds the repeats during one pass over a text, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = DigestSet()

    def is_repeat(self, digest: bytes, n_bytes: int) -> bool:
        """Counts the next document. Returns whether it is equal to an earlier one."""
        self.documents += 1
        self.bytes += n_bytes
        if self._seen.add(digest):
            return False
        self.repeats += 1
        self.repeated_bytes += n_bytes
        return True
