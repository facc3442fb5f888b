"""The loss of the head on a CPU: softmax in C, matmuls in fp16 or of factors that suit oneDNN."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from acorn.kernels.block import InC
from acorn.kernels.build import TYPES
from acorn.kernels.matmul import Fp16Matmul
from acorn.model import loss
from acorn.model.loss import IGNORE, Matmul, Parts, Workspace


def pytorch_parts(compiled: bool = False) -> Parts:
    """The parts of `loss.cross_entropy` on a CPU without a C compiler."""
    softmax = torch.compile(loss.softmax_gradient, dynamic=False) if compiled else loss.softmax_gradient
    return Parts(softmax_gradient=softmax, add_weight_gradient=add_weight_gradient)


def parts_in_c(c: InC, fp16: Fp16Matmul | None) -> Parts:
    """The parts of `loss.cross_entropy` with a C compiler: the same up to rounding, for less time.

    Args:
        c: the library `training`.
        fp16: multiplies fp32 matrices; None: PyTorch does.
    """
    parts = pytorch_parts()
    return dataclasses.replace(
        parts,
        gradient_chunk=parts.group,  # all at once, since a row in fp32 stays in the cache
        matmul=loss.matmul if fp16 is None else functools.partial(matmul, fp16),
        softmax_gradient=functools.partial(softmax_gradient, c),
        transposed=functools.partial(transposed, c),
        add_weight_gradient=functools.partial(add_weight_gradient_in_c, c),
    )


def cross_entropy(
    parts: Parts,
    in_place: bool,
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    workspace: Workspace,
    matmul_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """As `loss.cross_entropy`.

    Args:
        parts: of it.
        in_place: where all tokens are one group in fp32, the weight's gradient is added to `weight.grad` in the
            backward pass.
    """
    in_fp32 = x.dtype == weight.dtype == torch.float32 and matmul_dtype in (None, torch.float32)
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not (in_place and trains and in_fp32 and len(x) <= parts.group and weight.is_leaf):
        return loss.cross_entropy(x, weight, targets, workspace, matmul_dtype, parts)
    total: Tensor = _InOneGroup.apply(x, weight, targets, workspace, parts)
    return total, (targets != IGNORE).sum()


class _InOneGroup(torch.autograd.Function):
    """The loss of tokens whose logits exist all at once, in fp32.

    The logits' gradient stays in its place until the backward pass, whose matmul adds the weight's gradient to that
    which it has. So there is no second tensor of the weight's size, which for few tokens is the largest of all.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, workspace: Workspace, parts: Parts) -> Tensor:
        logits = workspace.take(len(x), weight)
        parts.matmul(x, weight.T, out=logits)
        total = parts.softmax_gradient(logits, targets)
        ctx.save_for_backward(x, weight)
        ctx.rest = workspace, parts, logits
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        workspace, parts, grad_logits = ctx.rest
        if workspace.newest is not grad_logits:
            raise RuntimeError("another forward pass took the logits' place before this one's backward pass")
        scale = grad_outputs[0]
        grad_x = parts.matmul(grad_logits, weight) * scale if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            weight.grad = parts.matmul(grad_logits.T, x * scale, weight.grad, add=weight.grad is not None)
        return grad_x, None, None, None, None


def matmul(fp16: Fp16Matmul, a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """As `loss.matmul`, of fp32 matrices in fp16."""
    return fp16(a, b, out, add=add) if a.dtype == torch.float32 else loss.matmul(a, b, out, add=add)


def softmax_gradient(c: InC, logits: Tensor, targets: Tensor) -> Tensor:
    """As `loss.softmax_gradient`, in a third of the time; a row that does not count becomes zero.

    Raises:
        IndexError: a target is not below V.
    """
    n, V = logits.shape
    if logits.dtype not in TYPES or not logits.is_contiguous():
        return loss.softmax_gradient(logits, targets)
    if n and targets.max() >= V:
        raise IndexError(f"target {int(targets.max())} is out of range: there are {V} logits")
    targets = targets.contiguous()
    losses, workspace = (torch.empty(size, dtype=torch.float32, device="cpu") for size in (n, c.threads * V))
    c.library.cross_entropy_gradient(
        *(logits.data_ptr(), n, V, TYPES[logits.dtype], targets.data_ptr()),
        *(losses.data_ptr(), workspace.data_ptr(), c.threads),
    )
    return losses.sum()


def transposed(c: InC, weight: Tensor) -> Tensor:
    """As `loss.transposed`. In bf16, oneDNN is slow with a right factor whose rows lie apart."""
    return transpose(c, weight.contiguous()) if weight.dtype == torch.bfloat16 else loss.transposed(weight)


def add_weight_gradient(sums: Tensor | None, grad_logits: Tensor, x: Tensor, multiply: Matmul) -> Tensor:
    """As `loss.add_weight_gradient`.

    In 16 bits on a CPU oneDNN copies a left factor that is transposed once for every part of the result, so the
    smaller one is transposed beforehand: 40 ms instead of 70 for 2,048 tokens of 512 channels and 28,144 entries.
    """
    if x.dtype == torch.float32:
        return loss.add_weight_gradient(sums, grad_logits, x, multiply)
    gradient = (x.T.contiguous() @ grad_logits).T
    return gradient.float() if sums is None else sums.add_(gradient)


def add_weight_gradient_in_c(c: InC, sums: Tensor | None, grad_logits: Tensor, x: Tensor, multiply: Matmul) -> Tensor:
    """As `loss.add_weight_gradient`; in bf16 transposed, widened and added in one pass over memory."""
    if x.dtype != torch.bfloat16:
        return add_weight_gradient(sums, grad_logits, x, multiply)
    product = transpose(c, x.contiguous()) @ grad_logits  # (C, V)
    C, V = product.shape
    is_first = sums is None
    sums = x.new_empty(V, C, dtype=torch.float32) if sums is None else sums
    c.library.add_transposed(product.data_ptr(), C, V, sums.data_ptr(), is_first, c.threads)
    return sums


def transpose(c: InC, x: Tensor) -> Tensor:
    """x (n, m) in bf16, contiguous, as (m, n)."""
    n, m = x.shape
    y = x.new_empty(m, n)
    c.library.transpose(x.data_ptr(), n, m, y.data_ptr(), c.threads)
    return y
