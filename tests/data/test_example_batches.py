"""The order of examples, and their padded batches."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from acorn.data.example_batches import IGNORE, ExampleOrder, grouped, micro_batches, padded, padded_length
from acorn.data.examples import TokenExample
from acorn.model import loss


def example(length: int, trained: int = 1) -> TokenExample:
    rows = np.arange(length - trained, length)
    return TokenExample(np.arange(1, length + 1, dtype=np.int32), rows, rows + 100)


def test_the_ignored_target_is_the_models() -> None:
    assert IGNORE == loss.IGNORE


@given(size=st.integers(1, 40), first=st.integers(0, 200), seed=st.integers(0, 5))
def test_every_epoch_has_every_example_once(size: int, first: int, seed: int) -> None:
    """Wherever the batches are cut, and the same each time."""
    order = ExampleOrder(size, seed)
    start = first // size * size
    whole = order.examples(start, 2 * size)
    assert sorted(whole[:size]) == sorted(whole[size:]) == list(range(size))
    parts = [order.examples(number, 1)[0] for number in range(start, start + 2 * size)]
    assert parts == list(whole)


def test_epochs_seeds_and_rollbacks_differ_in_order() -> None:
    orders = [ExampleOrder(50, 0).examples(0, 100), ExampleOrder(50, 1).examples(0, 50)]
    orders += [ExampleOrder(50, 0, 1).examples(0, 50)]
    seen = {tuple(part) for part in (orders[0][:50], orders[0][50:], orders[1], orders[2])}
    assert len(seen) == 4


def test_rows_have_few_lengths() -> None:
    assert sorted({padded_length(n, 256) for n in range(1, 257)}) == [16, 24, 32, 48, 64, 96, 128, 192, 256]
    assert [padded_length(n, 40) for n in (3, 17, 33, 40)] == [16, 24, 40, 40]
    assert padded_length(5, 8) == 8


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 400))
def test_groups_hold_every_example_once_and_keep_their_size(lengths: list[int], tokens: int) -> None:
    groups = grouped(lengths, 100, tokens)
    assert sorted(n for numbers, _ in groups for n in numbers) == list(range(len(lengths)))
    for numbers, length in groups:
        assert max(lengths[n] for n in numbers) <= length <= 100
        assert len(numbers) == 1 or len(numbers) * length <= tokens


def test_a_few_short_examples_join_longer_ones() -> None:
    """Padding two rows by 8 tokens costs less than another pass; padding fifty by 48 does not."""
    assert grouped([10, 10, 20], 256, 4096) == [([0, 1, 2], 24)]
    assert [length for _, length in grouped([10] * 50 + [60], 256, 4096)] == [16, 64]


def test_a_padded_batch_counts_the_trained_rows_alone() -> None:
    ids, targets, rows = padded([example(3), example(5, trained=2)], 8, pad_id=99)
    assert ids.tolist() == [[1, 2, 3, *[99] * 5], [1, 2, 3, 4, 5, 99, 99, 99]]
    assert rows is not None
    assert rows.tolist() == [2, 11, 12]
    assert targets.flatten()[rows].tolist() == [102, 103, 104]
    assert int((targets != IGNORE).sum()) == 3
    assert padded([example(4, trained=4)], 4, 0)[2] is None, "nothing is gathered where all rows are counted"


def test_numbers_are_not_counted_where_they_are_nan() -> None:
    one = TokenExample(np.array([1, 2], np.int32), np.array([1]), np.array([[0.5, 1.0]], np.float32))
    _, targets, rows = padded([one], 4, 0)
    assert targets.shape == (1, 4, 2)
    assert torch.isnan(targets).sum() == 6
    assert rows is not None
    assert targets.flatten(0, 1)[rows].tolist() == [[0.5, 1.0]]


def test_micro_batches_stay_below_their_tokens() -> None:
    batches = list(micro_batches([example(10)] * 9, 64, 64, 0))
    assert [ids.shape for ids, _, _ in batches] == [(3, 16)] * 3
