"""The window of text for each sample number: a pure function, so the position of a run in its data is one number.

A window is block_size + 1 tokens. Windows start every block_size tokens of all shards joined end to end, from a phase
that is different in each epoch. The text is a ring: its end continues at its beginning, so nothing is dropped, and
every token is a target in every epoch. Each epoch visits every window once, in an order from a keyed permutation: first
of the groups of shards, then of the windows within a group. Batch size, number of processes and restarts are not
inputs, so they cannot change the order.

The permutation is a Feistel network with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite
domains"). Unlike a shuffled list it needs no memory, and any position in it can be computed directly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acorn.counting import counted
from acorn.errors import InputError

FEISTEL_ROUNDS = 6
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SampleOrder:
    """The order of a split's windows.

    Args:
        n_tokens: number of tokens in the split.
        block_size: number of tokens that a window predicts.
        seed: the run's seed.
        rollbacks: number of rollbacks after a divergence; each one changes the order.
        shard_starts: position of the first token of each shard.
        shuffle_group: number of shards that are shuffled together; 0: all.

    Raises:
        InputError: the text is shorter than one window.
    """

    n_tokens: int
    block_size: int
    seed: int
    rollbacks: int = 0
    shard_starts: tuple[int, ...] = (0,)
    shuffle_group: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < self.block_size + 1:
            raise InputError(
                f"The training text has {counted(self.n_tokens, 'token')}, fewer than one window of block_size + 1 = "
                f"{self.block_size + 1:,}.",
                where="data.source",
                fix="use more text, or lower model.block_size",
            )

    @property
    def n_windows(self) -> int:
        """Windows per epoch: enough for every token. The last one overlaps the first by less than block_size."""
        return -(-self.n_tokens // self.block_size)

    def starts(self, samples: Indices) -> Indices:
        """The first token of each sample's window: sample numbers (n,), from 0 -> positions (n,), below n_tokens.

        A window that begins near the end continues at token 0.
        """
        epochs, places = np.divmod(samples, self.n_windows)
        result = np.empty_like(samples)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = self._windows(int(epoch), places[here]) * self.block_size + self.phase(int(epoch))
        return result % self.n_tokens

    def phase(self, epoch: int) -> int:
        """The position where the first window of an epoch starts, below block_size."""
        return self._key(epoch, "phase") % self.block_size

    def _windows(self, epoch: int, places: Indices) -> Indices:
        """The window numbers at positions (n,) in the order of an epoch."""
        firsts = self._group_firsts()
        sizes = np.diff(np.append(firsts, self.n_windows))
        order = permutation(np.arange(len(firsts)), len(firsts), self._key(epoch, "groups"))
        ends = np.cumsum(sizes[order])
        slots = np.searchsorted(ends, places, side="right")
        within = places - (ends - sizes[order])[slots]
        result = np.empty_like(places)
        for slot in np.unique(slots):
            group, here = int(order[slot]), slots == slot
            key = self._key(epoch, f"group {group}")
            result[here] = firsts[group] + permutation(within[here], int(sizes[group]), key)
        return result

    def _group_firsts(self) -> Indices:
        """The first window of each group of shards. A group in which no window starts is omitted."""
        starts = np.asarray(self.shard_starts[:: self.shuffle_group or len(self.shard_starts)], dtype=np.int64)
        firsts = np.minimum(-(-starts // self.block_size), self.n_windows)
        return np.unique(firsts[firsts < self.n_windows])

    def _key(self, epoch: int, purpose: str) -> int:
        text = f"{self.seed}:{self.rollbacks}:{epoch}:{purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def permutation(places: Indices, size: int, key: int) -> Indices:
    """Maps `places` (n,), each in [0, size), by the permutation of [0, size) that `key` selects."""
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    round_keys = [np.uint64(_round_key(key, number)) for number in range(FEISTEL_ROUNDS)]
    result = np.asarray(places, dtype=np.uint64)
    outside = np.ones(result.shape, dtype=bool)
    while outside.any():  # cycle walking: values outside [0, size) are permuted again
        left, right = result[outside] >> shift, result[outside] & mask
        for round_key in round_keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        result[outside] = (left << shift) | right
        outside = result >= size
    return result.astype(np.int64)


def _round_key(key: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{key}:{number}".encode()).digest()[:8], "little")


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads every input bit over the output (the finalizer of MurmurHash3, A. Appleby)."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))
