"""Documents that come more than once: exact repeats in one text, and training documents that are also held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from acorn.config import DataConfig
from acorn.counting import counted
from acorn.text.digests import DigestSet, digest_of


class HeldOut:
    """The distinct documents of a held-out split, and which of them a pass over training has met."""

    def __init__(self, documents: Iterable[bytes]) -> None:
        self._digests = DigestSet()
        self.bytes = sum(len(raw) for raw in documents if self._digests.add(digest_of(raw)))
        self.forget()

    def __len__(self) -> int:
        return len(self._digests)

    def forget(self) -> None:
        """Begins a new pass over training."""
        self._met = DigestSet()
        self.bytes_met = 0

    def meet(self, digest: bytes, n_bytes: int) -> bool:
        """Whether a training document is held out; remembers it if so."""
        if digest not in self._digests:
            return False
        if self._met.add(digest):
            self.bytes_met += n_bytes
        return True

    @property
    def met(self) -> int:
        """Distinct held-out documents met."""
        return len(self._met)


class OverlapFilter:
    """Decides, over one pass, which training documents leave because they are held out."""

    def __init__(self, data: DataConfig, held_out: Mapping[str, HeldOut]) -> None:
        self._drop_overlap = data.overlap == "drop"
        self._held_out = tuple(held_out.values())
        for split in self._held_out:
            split.forget()

    def drops(self, digest: bytes, n_bytes: int) -> bool:
        # Every split is asked, also after a hit: one document may stand in both.
        hits = [split.meet(digest, n_bytes) for split in self._held_out]
        return self._drop_overlap and any(hits)


class Repeats:
    """The documents of one pass over a text, and those that repeat an earlier one exactly.

    Attributes:
        documents, bytes: all of them.
        repeats, repeated_bytes: those that came before.
    """

    def __init__(self) -> None:
        self._seen = DigestSet()
        self.documents = self.bytes = self.repeats = self.repeated_bytes = 0

    @property
    def distinct(self) -> int:
        return self.documents - self.repeats

    @property
    def mostly(self) -> bool:
        """Whether less than half of the documents are distinct."""
        return 2 * self.distinct < self.documents

    def is_repeat(self, digest: bytes, n_bytes: int) -> bool:
        """Takes the next document, and tells whether an equal one came before."""
        self.documents += 1
        self.bytes += n_bytes
        if self._seen.add(digest):
            return False
        self.repeats += 1
        self.repeated_bytes += n_bytes
        return True

    def told(self) -> str:
        """The numbers in words."""
        return (
            f"{counted(self.documents, 'document')}, {self.distinct:,} of them distinct: the "
            f"{counted(self.repeats, 'exact repeat')} "
            f"({self.repeated_bytes:,} of {self.bytes:,} bytes)"
        )
