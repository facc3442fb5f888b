"""The chunked loss and its gradients equal those of cross-entropy on all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from acorn.model.loss import DEFAULT_PARTS, IGNORE, Parts, Workspace, cross_entropy, matmul

VOCABULARY, WIDTH = 13, 8
CHUNK, GROUP = DEFAULT_PARTS.chunk, DEFAULT_PARTS.group
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3, GROUP + 1, 2 * GROUP + CHUNK + 3]


def inputs(n: int, dtype: torch.dtype = torch.float32, ignored: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Activations, weight, targets; a share of the targets is IGNORE."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, WIDTH, generator=generator, dtype=dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype)
    targets = torch.randint(VOCABULARY, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < ignored] = IGNORE
    return x.requires_grad_(), weight.requires_grad_(), targets


def expected(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss sum and both gradients by autograd, in fp64."""
    x, weight = (value.detach().double().requires_grad_() for value in (x, weight))
    loss = F.cross_entropy(F.linear(x, weight), targets, ignore_index=IGNORE, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss, (x, weight))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradients_equal_cross_entropy(n: int, dtype: torch.dtype) -> None:
    x, weight, targets = inputs(n, dtype)
    loss, count = cross_entropy(x, weight, targets, Workspace())
    assert loss.dtype == torch.float32
    loss.backward()

    wanted, wanted_x, wanted_weight = expected(x, weight, targets)
    assert count == (targets != IGNORE).sum()
    torch.testing.assert_close(loss.detach().double(), wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), wanted_x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), wanted_weight, rtol=1e-5, atol=1e-4)
    assert x.grad.dtype == weight.grad.dtype == dtype


@pytest.mark.parametrize("n", LENGTHS)
def test_without_gradients_the_loss_is_the_same(n: int) -> None:
    x, weight, targets = inputs(n)
    with torch.no_grad():
        loss, count = cross_entropy(x, weight, targets, Workspace())
    assert not loss.requires_grad
    assert count == (targets != IGNORE).sum()
    torch.testing.assert_close(loss.double(), expected(x, weight, targets)[0], rtol=1e-6, atol=1e-6)


def test_gradients_scale_with_the_loss() -> None:
    x, weight, targets = inputs(CHUNK + 5)
    loss, count = cross_entropy(x, weight, targets, Workspace())
    (loss / count * 3).backward()
    _, wanted_x, wanted_weight = expected(x, weight, targets)
    torch.testing.assert_close(x.grad.double(), wanted_x * 3 / count, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(weight.grad.double(), wanted_weight * 3 / count, rtol=1e-4, atol=1e-7)


def test_ignored_positions_have_no_effect() -> None:
    x, weight, targets = inputs(50)
    cross_entropy(x, weight, targets, Workspace())[0].backward()
    assert (x.grad[targets == IGNORE] == 0).all()
    assert (x.grad[targets != IGNORE] != 0).any(dim=1).all()


def test_with_every_position_ignored_loss_and_gradients_are_zero() -> None:
    x, weight, targets = inputs(CHUNK + 1, ignored=1.1)
    loss, count = cross_entropy(x, weight, targets, Workspace())
    loss.backward()
    assert (loss, count) == (0, 0)
    assert not x.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_frozen_activations_or_weight(frozen: str) -> None:
    x, weight, targets = inputs(20)
    (x if frozen == "x" else weight).requires_grad_(False)
    cross_entropy(x, weight, targets, Workspace())[0].backward()
    _, wanted_x, wanted_weight = expected(x, weight, targets)
    moving, wanted = (weight, wanted_weight) if frozen == "x" else (x, wanted_x)
    torch.testing.assert_close(moving.grad.double(), wanted, rtol=1e-5, atol=1e-5)
    assert (x if frozen == "x" else weight).grad is None


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_a_gradient_that_nobody_needs_is_not_computed(frozen: str) -> None:
    """Of the three matmuls of a group, only two are done."""
    x, weight, targets = inputs(20)
    (x if frozen == "x" else weight).requires_grad_(False)
    shapes = []

    def counted(*arguments, **options):
        result = matmul(*arguments, **options)
        shapes.append(tuple(result.shape))
        return result

    cross_entropy(x, weight, targets, Workspace(), parts=Parts(matmul=counted))[0].backward()
    assert shapes == [(20, len(weight)), tuple(weight.shape if frozen == "x" else x.shape)]


def test_bf16_autocast_equals_autocast_cross_entropy() -> None:
    x, weight, targets = inputs(CHUNK + 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = cross_entropy(x, weight, targets, Workspace(), torch.bfloat16)
    loss.backward()
    own = x.grad, weight.grad
    x.grad = weight.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = F.cross_entropy(F.linear(x, weight).float(), targets, ignore_index=IGNORE, reduction="sum")
    plain.backward()

    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=0)  # equal logits, rounded to bf16 at the same point
    for mine, theirs in zip(own, (x.grad, weight.grad), strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.01 * theirs.norm()


def test_huge_logits_do_not_overflow() -> None:
    x = torch.tensor([[300.0, -300.0]], requires_grad=True)
    weight = (torch.eye(2) * 100).requires_grad_()
    loss, _ = cross_entropy(x, weight, torch.tensor([1]), Workspace())
    loss.backward()
    assert loss == 60_000
    torch.testing.assert_close(x.grad, torch.tensor([[100.0, -100.0]]))


def test_a_gradient_in_bf16_is_scaled_in_fp32() -> None:
    """1 / 3,072 is not exact in bf16: rounded, it would make all gradients 0.2 % too large."""
    x, weight, targets = inputs(64)
    grads = []
    for scale in (1.0, 1 / 3072):
        narrow = x.detach().bfloat16().requires_grad_()
        loss, _ = cross_entropy(narrow, weight.detach().bfloat16(), targets, Workspace())
        grads.append(*torch.autograd.grad(loss * scale, narrow))
    ratio = (grads[1].double() * 3072 / grads[0].double()).nanmean()
    assert abs(ratio - 1) < 5e-4
