"""Which examples are samples number n to n + B - 1, and how they are grouped into padded micro-batches.

Both are pure functions: of (seed, rollbacks, sample number) and of the lengths. The rules of grouping are constants,
never timings, so that a resumed run computes what an uninterrupted one does.

Every example has a row of its own, so no example sees another. Rows are padded on the right: positions count from 0,
and a causal network computes the same at them as without the padding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acorn.data.examples import TokenExample
from acorn.data.sample_order import Indices, permutation

IGNORE = -1
"""Target of positions at which nothing is learned (ids and classes; of numbers it is NaN)."""

SHORTEST = 16
"""Tokens of the shortest rows. Longer ones have 1.5, 2, 3, 4, 6, 8 ... times as many, so that there are few shapes."""

PASS_TOKENS = 128
"""Padding tokens that are cheaper than another forward and backward."""

GATHERED_SHARE = 0.9
"""Where no more of all rows are counted, the head computes these alone."""

PaddedBatch = tuple[Tensor, Tensor, Tensor | None]
"""Ids (B, T), targets (B, T) or (B, T, L), and the indices of counted rows in the flattened (B T) or None: all."""


@dataclass(frozen=True)
class ExampleOrder:
    """The order of the training examples. Each epoch visits every one once.

    Args:
        size: number of examples.
        seed: the run's seed.
        rollbacks: how often the run rolled back after a divergence; each time the order changes.
    """

    size: int
    seed: int
    rollbacks: int = 0

    def examples(self, first: int, count: int) -> Indices:
        """Numbers of the examples that are samples `first` to `first + count - 1` (count,). Samples count from 0."""
        epochs, places = np.divmod(np.arange(first, first + count, dtype=np.int64), self.size)
        result = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            result[here] = permutation(places[here], self.size, self._key(int(epoch)))
        return result

    def _key(self, epoch: int) -> int:
        text = f"{self.seed}:{self.rollbacks}:{epoch}:examples"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def padded_length(length: int, context: int) -> int:
    """Tokens of the row for an example of `length` tokens, at most `context`."""
    step = SHORTEST
    while step < length:
        if 3 * step // 2 >= length:
            return min(3 * step // 2, context)
        step *= 2
    return min(step, context)


def grouped(lengths: Sequence[int], context: int, tokens: int) -> list[tuple[list[int], int]]:
    """Groups of examples that are computed together, as (their numbers, tokens of their rows); longest rows last.

    Args:
        lengths: of the examples.
        context: tokens of a row at most.
        tokens: of a group at most, padding included; a single row may have more.
    """
    by_length: dict[int, list[int]] = {}
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        by_length.setdefault(padded_length(lengths[number], context), []).append(number)
    rows = sorted(by_length)
    groups: list[tuple[list[int], int]] = []
    waiting: list[int] = []
    for row, longer in zip(rows, [*rows[1:], None], strict=True):
        waiting += by_length[row]
        if longer is not None and len(waiting) * (longer - row) <= PASS_TOKENS:
            continue
        parts = -(-len(waiting) // max(1, tokens // row))
        groups += [([int(n) for n in part], row) for part in np.array_split(np.array(waiting), parts)]
        waiting = []
    return groups


def padded(examples: Sequence[TokenExample], length: int, pad_id: int) -> PaddedBatch:
    """Examples as one batch whose rows have `length` tokens."""
    ids = np.full((len(examples), length), pad_id, np.int64)
    several = examples[0].values.shape[1:]
    targets = np.full((len(examples), length, *several), np.nan if several else IGNORE, examples[0].values.dtype)
    for number, example in enumerate(examples):
        ids[number, : len(example.ids)] = example.ids
        targets[number, example.rows] = example.values
    counted = np.concatenate([number * length + example.rows for number, example in enumerate(examples)])
    rows = torch.from_numpy(counted) if len(counted) <= GATHERED_SHARE * ids.size else None
    return torch.from_numpy(ids), torch.from_numpy(targets), rows


def micro_batches(examples: Sequence[TokenExample], context: int, tokens: int, pad_id: int) -> Iterator[PaddedBatch]:
    """Any number of examples as padded batches of at most `tokens` tokens each (see `grouped`)."""
    for numbers, length in grouped([len(example.ids) for example in examples], context, tokens):
        yield padded([examples[number] for number in numbers], length, pad_id)
