"""Fused head and cross-entropy, computed for a group of tokens at a time.

Logits are the largest tensor of training: 8 sequences of 512 tokens times 28,144 entries are 461 MB in fp32, and
their gradient as much again. Here the logits of a group exist only until its loss and gradients are computed, both in
the forward. This is possible because the loss is a plain sum: the backward only scales these gradients. Logits are
replaced by their own gradient in place, and never exist in fp32 for a whole group, unless matmuls are in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1
"""Target of positions that are ignored by the loss."""


class Workspace:
    """Memory for a group's logits, which a head allocates once and reuses.

    If it were freed, smaller blocks would be allocated there before the next step, and the heap would grow by
    fragmentation (docs/lab-notebook.md).
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self.newest: Tensor | None = None
        """The logits of the last call of `take`, which have overwritten those of earlier calls."""

    def take(self, n: int, weight: Tensor) -> Tensor:
        """Memory for logits (n, V) in the type of weight (V, C): the same each time, unless it is too small."""
        V = weight.size(0)
        self.newest = None  # else it would keep the old buffer alive
        if self._buffer is None or self._buffer.dtype != weight.dtype or self._buffer.numel() < n * V:
            self._buffer = None  # frees the old buffer before the new one is allocated
            self._buffer = weight.new_empty(n * V)
        self.newest = self._buffer[: n * V].view(n, V)
        return self.newest


def fresh_memory(workspace: Workspace, n: int, weight: Tensor) -> Tensor:
    """New memory for logits (n, V), for devices on which PyTorch's allocator reuses freed memory."""
    return weight.new_empty(n, weight.size(0))


class Matmul(Protocol):
    """The signature of `matmul`."""

    def __call__(self, a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor: ...


def matmul(a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """a (M, K) @ b (K, N), written to `out` if it is given; with `add`, added to `out`."""
    return out.addmm_(a, b) if add and out is not None else torch.mm(a, b, out=out)


def softmax_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Replaces logits (n, V) by their gradient, probabilities - one-hot(targets), in place.

    Returns:
        the sum of the losses in fp32. Rows whose target is IGNORE add nothing to it; their gradient is undefined.
    """
    index = targets.clamp(min=0)[:, None]  # (n, 1)
    log_probabilities = F.log_softmax(logits.float(), -1)
    of_target = log_probabilities.gather(1, index)  # (n, 1)
    logits.copy_(log_probabilities.exp_())
    logits.scatter_(1, index, (of_target.exp() - 1).to(logits.dtype))
    return -(of_target.squeeze(1) * (targets != IGNORE)).sum()


def transposed(weight: Tensor) -> Tensor:
    """The weight (V, C) as (C, V), for the matmul of the forward."""
    return weight.T


def add_weight_gradient(sums: Tensor | None, grad_logits: Tensor, x: Tensor, multiply: Matmul) -> Tensor:
    """grad_logits (n, V)^T x (n, C) -> (V, C), in fp32; added to `sums` in place, unless that is None."""
    if x.dtype == torch.float32:  # the matmul itself adds, without a temporary tensor
        return multiply(grad_logits.T, x, out=sums, add=sums is not None)
    gradient = grad_logits.T @ x
    return gradient.float() if sums is None else sums.add_(gradient)


@dataclass(frozen=True)
class Parts:
    """The functions and sizes that `cross_entropy` uses, chosen for the device.

    Attributes:
        group: tokens whose logits exist at the same time, in the type of the matmuls.
        chunk: tokens whose fp32 logits exist at the same time if no gradient is needed. With 8,192 entries, 256 of
            them are 8 MB, which fits in a CPU's cache.
        gradient_chunk: tokens per call of `softmax_gradient`.
    """

    group: int = 2048
    chunk: int = 256
    gradient_chunk: int = 256
    matmul: Matmul = matmul
    softmax_gradient: Callable[[Tensor, Tensor], Tensor] = softmax_gradient
    transposed: Callable[[Tensor], Tensor] = transposed
    add_weight_gradient: Callable[[Tensor | None, Tensor, Tensor, Matmul], Tensor] = add_weight_gradient
    memory: Callable[[Workspace, int, Tensor], Tensor] = Workspace.take


DEFAULT_PARTS = Parts()


def cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    workspace: Workspace,
    matmul_dtype: torch.dtype | None = None,
    parts: Parts = DEFAULT_PARTS,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the logits `x @ weight.T`.

    Args:
        x: activations (N, C).
        weight: (V, C).
        targets: ids (N,); IGNORE is ignored.
        workspace: memory for the logits.
        matmul_dtype: type of the matmuls; None: that of the activations. Without gradients, autocast decides.
        parts: the functions and sizes to use.

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
    """Computes the gradients in the forward, while the logits exist; the backward scales them."""

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
        # A frozen weight, or activations that no trained parameter stands behind, need no gradient.
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        grad_x, grad_weight = torch.empty_like(x) if needs_x else None, None
        memory = parts.memory(workspace, min(parts.group, x.size(0)), narrow)
        for begin in range(0, x.size(0), parts.group):
            some, wanted = x[begin : begin + parts.group].to(dtype), targets[begin : begin + parts.group]
            logits = parts.matmul(some, right, out=memory[: some.size(0)])
            total += _to_gradient(logits, wanted, parts)
            counts = (wanted != IGNORE)[:, None].to(dtype)
            if grad_x is not None:
                grad_x[begin : begin + parts.group] = parts.matmul(logits, narrow) * counts
            if needs_weight:
                grad_weight = parts.add_weight_gradient(grad_weight, logits, some * counts, parts.matmul)
        if grad_weight is None and needs_weight:  # no tokens
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        if grad_x is not None:  # the scale stays fp32: rounded to grad_x's bf16, 1 / 3,072 would be 0.2 % too large
            grad_x = grad_x * scale
        if grad_weight is not None:  # in place is safe: PyTorch refuses a second backward, which would scale it twice
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype).contiguous()
        return grad_x, grad_weight, None, None, None, None


def _to_gradient(logits: Tensor, targets: Tensor, parts: Parts) -> Tensor:
    """Calls `parts.softmax_gradient` for the logits of a group, a chunk at a time; returns the sum of the losses."""
    size = parts.gradient_chunk
    chunks = zip(logits.split(size), targets.split(size), strict=True)
    return torch.stack([parts.softmax_gradient(rows, wanted) for rows, wanted in chunks]).sum()
