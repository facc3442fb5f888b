"""Digests of documents: what decides the split, finds duplicates, and finds held-out text in training.

Each document is known by 16 bytes of BLAKE2b over its original bytes. Two different documents share a digest
with a chance of about n^2 / 2^129 for n documents: never, in practice.
"""

from __future__ import annotations

from hashlib import blake2b

DIGEST_BYTES = 16
_FIRST_SLOTS = 1 << 15
_EMPTY = bytes(DIGEST_BYTES)  # marks a free slot; as a digest its chance is 2^-128


def digest_of(raw: bytes) -> bytes:
    """The 16-byte digest of a document's original bytes."""
    return blake2b(raw, digest_size=DIGEST_BYTES).digest()


def digest_limit(share: float) -> bytes:
    """The bytes below which `share` (0 to 1) of all digests sort: those documents are validation."""
    return int(share * 2**64).to_bytes(8, "big")


class DigestSet:
    """A set of digests in one block of memory: an open-addressing table of 16-byte slots, at most 2/3 full.

    A Python set of bytes takes about 100 bytes an entry; this takes 24 to 48.
    """

    def __init__(self) -> None:
        self._slots = bytearray(_FIRST_SLOTS * DIGEST_BYTES)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        return self._find(digest)[1]

    def add(self, digest: bytes) -> bool:
        """Puts `digest` in. Returns whether it is new."""
        at, present = self._find(digest)
        if present:
            return False
        self._slots[at : at + DIGEST_BYTES] = digest
        self._count += 1
        if self._count * DIGEST_BYTES * 3 > len(self._slots) * 2:
            self._double()
        return True

    def _find(self, digest: bytes) -> tuple[int, bool]:
        """The offset of `digest`, or of the free slot it belongs in; and whether it is there."""
        slots = self._slots
        last = len(slots) - 1
        # The second half chooses the slot: the first half has already chosen the split, so in training
        # its high bits are not uniform.
        at = int.from_bytes(digest[8:], "big") * DIGEST_BYTES & last
        while (held := slots[at : at + DIGEST_BYTES]) != _EMPTY:
            if held == digest:
                return at, True
            at = (at + DIGEST_BYTES) & last
        return at, False

    def _double(self) -> None:
        old = self._slots
        slots = self._slots = bytearray(2 * len(old))
        last = len(slots) - 1
        for start in range(0, len(old), DIGEST_BYTES):
            digest = old[start : start + DIGEST_BYTES]
            if digest != _EMPTY:
                at = int.from_bytes(digest[8:], "big") * DIGEST_BYTES & last
                while slots[at : at + DIGEST_BYTES] != _EMPTY:
                    at = (at + DIGEST_BYTES) & last
                slots[at : at + DIGEST_BYTES] = digest
