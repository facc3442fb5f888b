"""The order of samples: a permutation in each epoch that depends only on seed and sample number."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.data.sample_order import SampleOrder, permutation
from acorn.errors import InputError


def starts(order: SampleOrder, first: int, count: int) -> list[int]:
    return order.starts(np.arange(first, first + count)).tolist()


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permutation_is_a_bijection(size: int, key: int) -> None:
    assert sorted(permutation(np.arange(size), size, key)) == list(range(size))


def test_permutation_looks_random() -> None:
    """Neighbors do not stay neighbors, and over keys all images are about equally likely (chi-square, 63 degrees)."""
    order = permutation(np.arange(10_000), 10_000, 1)
    assert np.mean(np.abs(np.diff(order)) <= 10) < 0.01
    counts = np.bincount([int(permutation(np.array([5]), 64, key)[0]) for key in range(6400)], minlength=64)
    assert ((counts - 100) ** 2 / 100).sum() < 120  # the 0.9999 quantile is 121


@given(
    n_tokens=st.integers(9, 400),
    block_size=st.integers(1, 8),
    seed=st.integers(0, 5),
    rollbacks=st.integers(0, 2),
    n_shards=st.integers(1, 6),
    shuffle_group=st.integers(0, 4),
)
@settings(max_examples=80, deadline=None)
def test_an_epoch_has_each_window_once_and_every_token_as_a_target(
    n_tokens: int, block_size: int, seed: int, rollbacks: int, n_shards: int, shuffle_group: int
) -> None:
    shard_starts = tuple(n_tokens * number // n_shards for number in range(n_shards))
    order = SampleOrder(n_tokens, block_size, seed, rollbacks, shard_starts, shuffle_group)
    n = order.n_windows
    for epoch in range(3):
        found = starts(order, epoch * n, n)
        expected = {(order.phase(epoch) + number * block_size) % n_tokens for number in range(n)}
        assert len(set(found)) == n
        assert set(found) == expected
        targets = {(start + offset) % n_tokens for start in found for offset in range(1, block_size + 1)}
        assert targets == set(range(n_tokens))


@given(batch_sizes=st.lists(st.integers(1, 50), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_batch_sizes_do_not_change_the_order(batch_sizes: list[int]) -> None:
    """Batches straddle epochs (23 windows here), and a resumed or re-batched run sees the same sequence."""
    order = SampleOrder(n_tokens=180, block_size=8, seed=3)
    joined, first = [], 0
    for size in batch_sizes:
        joined += starts(order, first, size)
        first += size
    assert joined == starts(order, 0, first)


def test_epochs_seeds_and_rollbacks_differ() -> None:
    one = SampleOrder(10_000, 10, seed=0)
    n = one.n_windows
    orders = [starts(one, 0, n), starts(one, n, n)]
    orders += [
        starts(SampleOrder(10_000, 10, seed=1), 0, n),
        starts(SampleOrder(10_000, 10, seed=0, rollbacks=1), 0, n),
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_groups_are_read_one_after_another() -> None:
    """With shuffle_group = 2, the windows of two shards are all read before those of the next two begin."""
    order = SampleOrder(1200, 10, seed=0, shard_starts=(0, 200, 400, 600, 800, 1000), shuffle_group=2)
    phase = order.phase(0)
    groups = [((start - phase) % 1200) // 400 for start in starts(order, 0, order.n_windows)]
    changes = [a for a, b in pairwise(groups) if a != b]
    assert len(changes) == 2
    assert sorted(set(groups)) == [0, 1, 2]


def test_a_text_shorter_than_a_window_is_refused_with_both_numbers() -> None:
    """Fault 24: fewer tokens than one window."""
    with pytest.raises(InputError) as caught:
        SampleOrder(n_tokens=256, block_size=256, seed=0)
    assert "256 tokens" in str(caught.value)
    assert "257" in str(caught.value)
    assert SampleOrder(n_tokens=257, block_size=256, seed=0).n_windows == 2
