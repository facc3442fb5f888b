"""Reads batches of inputs and targets by sample number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from acorn.data.sample_order import Indices, SampleOrder
from acorn.data.token_shards import TokenSequence


def read_batch(tokens: TokenSequence, order: SampleOrder, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Reads the samples `first` to `first + count - 1`.

    Returns:
        inputs and targets, each int64 (count, block_size); the targets are the inputs shifted by one token.
    """
    starts = order.starts(np.arange(first, first + count, dtype=np.int64))
    windows = torch.from_numpy(_read_ring(tokens, starts, order.block_size + 1))
    return windows[:, :-1], windows[:, 1:]


def _read_ring(tokens: TokenSequence, starts: Indices, length: int) -> Indices:
    """Windows (n, length) of the text as a ring: a window that reaches the end continues at the beginning."""
    last = len(tokens) - length
    windows = tokens.gather(np.minimum(starts, last), length)
    for row in np.flatnonzero(starts > last):
        tail = tokens[int(starts[row]) : len(tokens)]
        windows[row] = np.concatenate((tail, tokens[0 : length - len(tail)]))
    return windows
