"""Batches and scores."""

from __future__ import annotations

import pytest
import torch

from acorn.train.training_data import Batch, Score


def test_windows_are_grouped_in_order() -> None:
    """The last micro-batch may be smaller; every target is counted."""
    text = torch.arange(5 * 9).reshape(5, 9)
    batch = Batch.of_windows(text[:, :-1], text[:, 1:], 2)
    assert [len(ids) for ids, _, _ in batch.micro_batches] == [2, 2, 1]
    assert torch.equal(torch.cat([ids for ids, _, _ in batch.micro_batches]), text[:, :-1])
    assert torch.equal(torch.cat([targets for _, targets, _ in batch.micro_batches]), text[:, 1:])
    assert (batch.tokens, batch.count, batch.context) == (40, 40, 8)
    assert all(rows is None for _, _, rows in batch.micro_batches)


@pytest.mark.parametrize("count", [0, -1, float("nan")])
def test_a_batch_without_counted_targets_is_refused(count: float) -> None:
    """Its loss would be a division by zero."""
    with pytest.raises(ValueError, match="without counted targets"):
        Batch([], tokens=8, count=count, context=8)


def test_a_score_is_a_sum_and_a_count() -> None:
    assert Score(6.0, 4).loss == 1.5
    assert Score(6.0, 4).figures == {}
