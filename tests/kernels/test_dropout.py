"""Dropout: its frequency, its scale, and the independence of elements that share a random number."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from acorn.kernels.attention import attention_weights, causal_attention
from acorn.kernels.dropout import dropout


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_share_of_zeros_and_scale(p: float) -> None:
    torch.manual_seed(0)
    x = torch.rand(1000, 1000) + 0.5
    y = dropout(x, p)
    zeros = y == 0
    assert torch.equal(y[~zeros], x[~zeros] * torch.tensor(1 / (1 - p)))
    deviation = math.sqrt(p * (1 - p) / x.numel())
    assert abs(zeros.double().mean() - p) < 4.5 * deviation + 1 / 131_072


def test_the_four_elements_of_a_random_number_are_independent() -> None:
    """All sixteen outcomes are equally frequent (chi-squared test, 15 degrees of freedom, p = 1 / 10,000)."""
    torch.manual_seed(1)
    kept = (dropout(torch.ones(400_000), 0.5) > 0).view(-1, 4)
    outcomes = (kept * torch.tensor([1, 2, 4, 8])).sum(1).bincount(minlength=16)
    expected = len(kept) / 16
    assert (outcomes - expected).square().sum() / expected < 44.3
    assert not torch.equal(kept[::2], kept[1::2])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    y = dropout(torch.ones(shape, dtype=dtype), 0.4)
    assert (y.shape, y.dtype) == (shape, dtype)
    assert set(y.flatten().tolist()) <= {0.0, F.dropout(torch.ones(50, dtype=dtype), 0.4).max().item()}


@pytest.mark.parametrize("p", [0.99999, 0.999999, 1 - 1e-9])
def test_p_close_to_one_does_not_overflow(p: float) -> None:
    assert (dropout(torch.ones(100_000), p) > 0).double().mean() < 0.001


def test_it_depends_on_the_random_state_only() -> None:
    x = torch.randn(1000)
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(dropout(x, 0.3))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_gradient() -> None:
    x = torch.rand(100).add(1).requires_grad_()
    y = dropout(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())


def test_no_random_numbers_are_drawn_for_p_zero() -> None:
    x, state = torch.randn(10), torch.get_rng_state()
    assert dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_compiled_it_is_pytorchs() -> None:
    """In one graph; it depends on the random state too."""
    compiled = torch.compile(dropout, backend="aot_eager", fullgraph=True)
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(compiled(torch.ones(10_000), 0.25))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert abs((results[0] == 0).double().mean() - 0.25) < 0.02


def test_dropout_of_attention_weights() -> None:
    """With unit vectors as values the output is the weights: each is zero, or that without dropout / (1 - p)."""
    T = D = 300  # two blocks of queries
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn(2, 2, T, D, generator=generator) for _ in range(2))
    v = torch.eye(T).expand(2, 2, T, D)
    weights, dropped = (causal_attention(attention_weights, q, k, v, p) for p in (0.0, 0.25))
    zeros = (dropped == 0) & (weights > 0)
    torch.testing.assert_close(dropped[~zeros], weights[~zeros] / 0.75)
    count = int((weights > 0).sum())
    assert abs(int(zeros.sum()) / count - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / count)
