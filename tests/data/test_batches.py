"""Batches: windows of a ring of tokens; targets are shifted by one token."""

from __future__ import annotations

import numpy as np

from acorn.data.batches import read_batch
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenSequence


def sequence(tmp_path, n_tokens: int) -> TokenSequence:
    np.arange(n_tokens, dtype="<u2")[: n_tokens // 3].tofile(tmp_path / "a.bin")
    np.arange(n_tokens, dtype="<u2")[n_tokens // 3 :].tofile(tmp_path / "b.bin")
    return TokenSequence([tmp_path / "a.bin", tmp_path / "b.bin"], np.dtype("<u2"))


def test_batches_are_the_windows_of_the_order(tmp_path) -> None:
    tokens = sequence(tmp_path, 100)
    order = SampleOrder(100, 7, seed=4)
    inputs, targets = read_batch(tokens, order, first=5, count=3 * order.n_windows)
    for row, start in enumerate(order.starts(np.arange(5, 5 + len(inputs)))):
        ring = [(int(start) + offset) % 100 for offset in range(8)]
        assert inputs[row].tolist() == ring[:-1]
        assert targets[row].tolist() == ring[1:]


def test_a_text_of_one_window(tmp_path) -> None:
    tokens = sequence(tmp_path, 9)
    inputs, targets = read_batch(tokens, SampleOrder(9, 8, seed=0), first=0, count=4)
    assert ((targets - inputs) % 9 == 1).all()
