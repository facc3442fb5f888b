"""What leaves the training text: exact duplicates, and documents that are also held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from acorn.config import DataConfig
from acorn.text.digests import DigestSet, digest_of
from acorn.text.reading import SplitCounts


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


class TrainingFilter:
    """Decides, over one pass, which training documents stay; counts the others in `counts`."""

    def __init__(self, data: DataConfig, held_out: Mapping[str, HeldOut], counts: SplitCounts) -> None:
        self._drop_overlap, self._dedup = data.overlap == "drop", data.dedup
        self._held_out = tuple(held_out.values())
        self._counts = counts
        self._seen = DigestSet()
        for split in self._held_out:
            split.forget()

    def stays(self, digest: bytes, n_bytes: int) -> bool:
        # Every split is asked, also after a hit: one document may stand in both.
        hits = [split.meet(digest, n_bytes) for split in self._held_out]
        if self._drop_overlap and any(hits):
            self._counts.dropped_overlap += 1
            return False
        if self._dedup and not self._seen.add(digest):
            self._counts.dropped_duplicates += 1
            return False
        return True
