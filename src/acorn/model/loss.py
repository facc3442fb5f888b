"""Cross-entropy straight from the last activations, a group of tokens at a time.

Logits are the largest tensor of training: 8 sequences of 512 tokens times 28,144 entries are 461 MB in fp32, and
their gradient as much again. Here each group's logits live only until its loss and gradients are taken, which is
possible because the loss is a plain sum: the backward pass only scales what the forward pass already found. Logits
turn into their own gradient in place, and are never whole in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1
"""Target of positions that do not count."""


class Workspace:
    """Memory for a group's logits, which a head keeps for as long as it lives.

    If it were given back, smaller blocks would be put there before the next step wants it, and the process would take
    more and more: 1,747 MiB instead of 1,280 at 28,144 entries in fp32 (docs/lab-notebook.md).
    """

    def __init__(self) -> None:
        self._kept: Tensor | None = None
        self.newest: Tensor | None = None
        """What was taken last: who took memory before finds these logits in the place of its own."""

    def take(self, n: int, weight: Tensor) -> Tensor:
        """Memory for logits (n, V) of the type of weight (V, C): the same place each time, unless it is too small."""
        V = weight.size(0)
        self.newest = None  # or the old place would still be held
        if self._kept is None or self._kept.dtype != weight.dtype or self._kept.numel() < n * V:
            self._kept = None  # the old one goes before the new one is made
            self._kept = weight.new_empty(n * V)
        self.newest = self._kept[: n * V].view(n, V)
        return self.newest


def fresh_memory(workspace: Workspace, n: int, weight: Tensor) -> Tensor:
    """As Workspace.take, where PyTorch gives memory out again by itself."""
    return weight.new_empty(n, weight.size(0))


class Matmul(Protocol):
    """a @ b, written to `out` if that is given, or added to what is there."""

    def __call__(self, a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor: ...


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """a (M, K) @ b (K, N), written to `out` if that is given, or added to what is there."""
    return out.addmm_(a, b) if add and out is not None else torch.mm(a, b, out=out)


def softmax_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Turns logits (n, V) into the gradient of the loss by them, in place: probabilities - one-hot(targets).

    Returns:
        the losses' sum in fp32. A row whose target is IGNORE counts nothing in it; its gradient means nothing.
    """
    index = targets.clamp(min=0)[:, None]  # (n, 1)
    log_probabilities = F.log_softmax(logits.float(), -1)
    of_target = log_probabilities.gather(1, index)  # (n, 1)
    logits.copy_(log_probabilities.exp_())
    logits.scatter_(1, index, (of_target.exp() - 1).to(logits.dtype))
    return -(of_target.squeeze(1) * (targets != IGNORE)).sum()


def transposed(weight: Tensor) -> Tensor:
    """The weight (V, C) as (C, V), as a matmul takes it."""
    return weight.T


def add_weight_gradient(sums: Tensor | None, grad_logits: Tensor, x: Tensor, multiply: Matmul) -> Tensor:
    """grad_logits (n, V)^T x (n, C), which is (V, C), in fp32; added to `sums`, in place, where there are some."""
    if x.dtype == torch.float32:  # the matmul itself adds, without a place of its own
        return multiply(grad_logits.T, x, out=sums, add=sums is not None)
    gradient = grad_logits.T @ x
    return gradient.float() if sums is None else sums.add_(gradient)


@dataclass(frozen=True)
class Parts:
    """What `cross_entropy` is made of.

    Attributes:
        group: tokens whose logits exist at once, in the type of the matmuls.
        chunk: tokens whose logits are in fp32 at once where no gradient is wanted. At 8,192 entries 256 of them are
            8 MB, which a processor's cache can hold.
        gradient_chunk: tokens that `softmax_gradient` is given at once.
    """

    group: int = 2048
    chunk: int = 256
    gradient_chunk: int = 256
    matmul: Matmul = matmul
    softmax_gradient: Callable[[Tensor, Tensor], Tensor] = softmax_gradient
    transposed: Callable[[Tensor], Tensor] = transposed
    add_weight_gradient: Callable[[Tensor | None, Tensor, Tensor, Matmul], Tensor] = add_weight_gradient
    memory: Callable[[Workspace, int, Tensor], Tensor] = Workspace.take


PLAIN = Parts()


def cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    workspace: Workspace,
    matmul_dtype: torch.dtype | None = None,
    parts: Parts = PLAIN,
) -> tuple[Tensor, Tensor]:
    """Loss of the logits `x @ weight.T`.

    Args:
        x: activations (N, C).
        weight: (V, C).
        targets: ids (N,); IGNORE does not count.
        workspace: where logits are written.
        matmul_dtype: type of the matmuls; None: that of the activations. Without gradients it is autocast's.
        parts: what it is made of.

    Returns:
        the sum of the losses in fp32, in nats, and the count of targets, both scalars.
    """
    count = (targets != IGNORE).sum()
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        total: Tensor = _WithGradients.apply(x, weight, targets, workspace, matmul_dtype or x.dtype, parts)
        return total, count
    total = x.new_zeros((), dtype=torch.float32)
    for some, wanted in zip(x.split(parts.chunk), targets.split(parts.chunk), strict=True):
        logits = parts.matmul(some, weight.T).float()
        total += F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum")
    return total, count


class _WithGradients(torch.autograd.Function):
    """The gradients are taken in the forward pass, while the logits are there; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        workspace: Workspace,
        dtype: torch.dtype,
        parts: Parts,
    ) -> Tensor:
        narrow = weight.to(dtype)
        right = parts.transposed(narrow)  # (C, V)
        total = x.new_zeros((), dtype=torch.float32)
        grad_x, grad_weight = torch.empty_like(x), None
        memory = parts.memory(workspace, min(parts.group, x.size(0)), narrow)
        for begin in range(0, x.size(0), parts.group):
            some, wanted = x[begin : begin + parts.group].to(dtype), targets[begin : begin + parts.group]
            logits = parts.matmul(some, right, out=memory[: some.size(0)])
            total += _to_gradient(logits, wanted, parts)
            counts = (wanted != IGNORE)[:, None].to(dtype)
            grad_x[begin : begin + parts.group] = parts.matmul(logits, narrow) * counts
            grad_weight = parts.add_weight_gradient(grad_weight, logits, some * counts, parts.matmul)
        if grad_weight is None:  # no tokens
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        grad_weight.mul_(scale)  # in place: PyTorch refuses a second backward pass, which would scale it twice
        # A scalar of fp32 stays one: rounded to grad_x's bf16, 1 / 3,072 would be 0.2 % too large.
        return grad_x * scale, grad_weight.to(ctx.weight_dtype).contiguous(), None, None, None, None


def _to_gradient(logits: Tensor, targets: Tensor, parts: Parts) -> Tensor:
    """`parts.softmax_gradient` for a group's logits, a chunk of them at a time."""
    size = parts.gradient_chunk
    chunks = zip(logits.split(size), targets.split(size), strict=True)
    return torch.stack([parts.softmax_gradient(rows, wanted) for rows, wanted in chunks]).sum()
