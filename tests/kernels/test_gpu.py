"""The loss for GPUs equals that for CPUs."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

from acorn.kernels import gpu
from acorn.kernels.gpu import cuda_parts
from acorn.model import loss
from acorn.model.loss import IGNORE, Workspace


def test_softmax_gradient_without_scatter() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(9, 13, generator=generator), torch.randint(13, (9,), generator=generator)
    targets[::4] = IGNORE
    mine, theirs = logits.clone(), logits.clone()
    torch.testing.assert_close(gpu.softmax_gradient(mine, targets), loss.softmax_gradient(theirs, targets))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
def test_loss_and_gradients(device: str) -> None:
    parts = cuda_parts(compiled=False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(parts.group + parts.chunk + 3, 8, generator=generator)
    weight, targets = torch.randn(13, 8, generator=generator), torch.randint(13, (len(x),), generator=generator)
    targets[::5] = IGNORE
    exact = [value.double().requires_grad_() for value in (x, weight)]
    wanted = F.cross_entropy(F.linear(*exact), targets, ignore_index=IGNORE, reduction="sum")
    wanted.backward()
    mine = [value.to(device).requires_grad_() for value in (x, weight)]
    cross_entropy = functools.partial(loss.cross_entropy, parts=parts)
    total, count = cross_entropy(*mine, targets.to(device), Workspace())
    total.backward()
    assert count == (targets != IGNORE).sum()
    torch.testing.assert_close(total.detach().double().cpu(), wanted.detach(), rtol=1e-6, atol=1e-6)
    for one, other in zip(mine, exact, strict=True):
        torch.testing.assert_close(one.grad.double().cpu(), other.grad, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        alone, _ = cross_entropy(*mine, targets.to(device), Workspace())
    torch.testing.assert_close(alone, total.detach(), rtol=1e-6, atol=1e-6)
