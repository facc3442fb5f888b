"""The order of training examples, and their grouping into padded micro-batches.

Both are pure functions: the order of (seed, rollbacks, sample number), the grouping of the examples' lengths. Grouping
uses fixed rules and no timings, so a resumed run computes the same sums as an uninterrupted one.

Every example has its own row, so no example sees another. Rows are padded on the right, so positions count from 0, and
a causal network computes the same values at them as without padding.
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
"""Target of positions that are not trained (for ids and classes; for numbers it is NaN)."""

SHORTEST = 16
"""Tokens in the shortest rows. Longer rows have 1.5, 2, 3, 4, 6, 8, ... times as many, so there are few shapes."""

PASS_TOKENS = 128
"""Up to so many padding tokens cost less than another forward and backward."""

GATHERED_SHARE = 0.9
"""If at most this share of all rows is counted, the head computes only the counted ones."""

PaddedBatch = tuple[Tensor, Tensor, Tensor | None]
"""Ids (B, T), targets (B, T) or (B, T, L), and the indices of counted rows in the flattened (B T) or None: all."""


@dataclass(frozen=True)
class ExampleOrder:
    """The order of the training examples. Each epoch uses every example once.

    Args:
        size: number of examples.
        seed: the run's seed.
        rollbacks: number of rollbacks after a divergence; each one changes the order.
    """

    size: int
    seed: int
    rollbacks: int = 0

    def examples(self, first: int, count: int) -> Indices:
        """Indices (count,) of the examples that are samples `first` to `first + count - 1`, counted from 0."""
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
    """Tokens in the row of an example of `length` tokens; at most `context`."""
    step = SHORTEST
    while step < length:
        if 3 * step // 2 >= length:
            return min(3 * step // 2, context)
        step *= 2
    return min(step, context)


def grouped(lengths: Sequence[int], context: int, tokens: int) -> list[tuple[list[int], int]]:
    """Groups of examples that are computed together, as (indices, tokens per row); the longest rows last.

    Args:
        lengths: of the examples.
        context: largest number of tokens in a row.
        tokens: largest number of tokens in a group, padding included; a group of one row may have more.
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
    """One batch of the examples, with `length` tokens per row."""
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
    """Padded batches of the examples, each of at most `tokens` tokens (see `grouped`)."""
    for numbers, length in grouped([len(example.ids) for example in examples], context, tokens):
        yield padded([examples[number] for number in numbers], length, pad_id)
