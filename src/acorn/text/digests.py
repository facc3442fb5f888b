"""Digests of documents. They decide the split and find duplicates and held-out text in training.

A digest is 16 bytes of BLAKE2b over the original bytes of a document. The probability that two of n different documents
have the same digest is about n^2 / 2^129, which is negligible.
"""

from __future__ import annotations

from hashlib import blake2b

DIGEST_BYTES = 16
_INITIAL_SLOTS = 1 << 15
_EMPTY_SLOT = bytes(DIGEST_BYTES)  # marks a free slot; the probability that a digest equals it is 2^-128


def digest_of(raw: bytes) -> bytes:
    """The 16-byte digest of a document's original bytes."""
    return blake2b(raw, digest_size=DIGEST_BYTES).digest()


def digest_limit(share: float) -> bytes:
    """The threshold that a `share` (0 to 1) of all digests is below. These documents are the validation split."""
    return int(share * 2**64).to_bytes(8, "big")


class DigestSet:
    """A set of digests in one block of memory: a hash table with open addressing, 16-byte slots, at most 2/3 full.

    It takes 24 to 48 bytes per entry; a Python set of bytes objects takes about 100.
    """

    def __init__(self) -> None:
        self._slots = bytearray(_INITIAL_SLOTS * DIGEST_BYTES)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        return self._find(digest)[1]

    def add(self, digest: bytes) -> bool:
        """Adds `digest`. Returns whether it is new."""
        at, present = self._find(digest)
        if present:
            return False
        self._slots[at : at + DIGEST_BYTES] = digest
        self._count += 1
        if self._count * DIGEST_BYTES * 3 > len(self._slots) * 2:
            self._double()
        return True

    def _find(self, digest: bytes) -> tuple[int, bool]:
        """The offset of `digest`, or of the free slot where it belongs, and whether the digest is present."""
        slots = self._slots
        last = len(slots) - 1
        # The second half of the digest chooses the slot. The first half decided the split, so its high bits are not
        # uniform within a split.
        at = int.from_bytes(digest[8:], "big") * DIGEST_BYTES & last
        while (held := slots[at : at + DIGEST_BYTES]) != _EMPTY_SLOT:
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
            if digest != _EMPTY_SLOT:
                at = int.from_bytes(digest[8:], "big") * DIGEST_BYTES & last
                while slots[at : at + DIGEST_BYTES] != _EMPTY_SLOT:
                    at = (at + DIGEST_BYTES) & last
                slots[at : at + DIGEST_BYTES] = digest
