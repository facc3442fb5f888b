"""Keeps keys and values of beginnings of texts, so that a beginning that several prompts share is computed once.

They are kept in chunks of equal length, found by all tokens up to their end. Who adds a chunk makes sure that a prompt
would have got the same keys and values, to the last bit: `DecodingLoop` adds what C code computed, where this is always
so, and of what PyTorch computed the chunks of prompts that were read whole.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_BYTES = 256 * 2**20
"""Memory for keys and values, at most."""


class PrefixCache:
    """Keys and values of chunks, found by all tokens up to their end; those not used for longest are dropped first.

    Args:
        chunk: tokens of a chunk.
        largest_bytes: memory for keys and values.

    Attributes:
        bytes: memory in use.
    """

    def __init__(self, chunk: int, largest_bytes: int = LARGEST_BYTES) -> None:
        self.chunk, self.largest_bytes = chunk, largest_bytes
        self.bytes = 0
        self._chunks: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()  # the one used last is at the end

    def find(self, ids: Sequence[int], limit: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values, each (n_layer, K, chunk, D), of the chunks that `ids` begins with.

        Args:
            limit: largest number of tokens: those that would be read in whole chunks (`Stepper.whole_chunks`).
        """
        found = []
        names = self._names(ids, limit // self.chunk)
        for name in names:
            if name not in self._chunks:
                break
            found.append(self._chunks[name])
        for name in reversed(names[: len(found)]):  # a chunk is of no use without those before it: they go last
            self._chunks.move_to_end(name)
        return found

    def add(self, ids: Sequence[int], keys: Tensor, values: Tensor) -> None:
        """Keeps a copy of a chunk.

        Args:
            ids: all tokens up to its end.
            keys: of the chunk (n_layer, K, chunk, D).
            values: the same.
        """
        names = self._names(ids, len(ids) // self.chunk)
        if names[-1] not in self._chunks:
            size = 2 * keys.numel() * keys.element_size()
            if size > self.largest_bytes:
                return
            while self.bytes + size > self.largest_bytes:
                old, _ = self._chunks.popitem(last=False)[1]
                self.bytes -= 2 * old.numel() * old.element_size()
            copies = (
                keys.clone(memory_format=torch.contiguous_format),
                values.clone(memory_format=torch.contiguous_format),
            )
            self._chunks[names[-1]] = copies
            self.bytes += size
        for name in reversed(names):
            if name in self._chunks:
                self._chunks.move_to_end(name)

    def _names(self, ids: Sequence[int], chunks: int) -> list[bytes]:
        """A digest of all tokens up to the end of each of the first `chunks`, in a chain: O(tokens)."""
        names, last = [], b""
        for first in range(0, chunks * self.chunk, self.chunk):
            last = hashlib.sha256(last + array("q", ids[first : first + self.chunk]).tobytes()).digest()
            names.append(last)
        return names
