"""Cross-entropy of the head on a CPU: softmax in C; matmuls in fp16, or with operands laid out as oneDNN is fast."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor

from acorn.kernels.block import CKernels
from acorn.kernels.build import TYPES
from acorn.kernels.matmul import Fp16Matmul
from acorn.model import loss
from acorn.model.loss import IGNORE, Matmul, Parts, Workspace


def pytorch_parts(compiled: bool = False) -> Parts:
    """The parts of `loss.cross_entropy` on a CPU without a C compiler."""
    softmax = torch.compile(loss.softmax_gradient, dynamic=False) if compiled else loss.softmax_gradient
    return Parts(softmax_gradient=softmax, add_weight_gradient=add_weight_gradient)


def parts_in_c(c: CKernels, fp16: Fp16Matmul | None) -> Parts:
    """The parts of `loss.cross_entropy` on a CPU with a C compiler: faster, and equal up to rounding.

    Args:
        c: the library `training`.
        fp16: the matmul of fp32 matrices; None: PyTorch's.
    """
    parts = pytorch_parts()
    return dataclasses.replace(
        parts,
        gradient_chunk=parts.group,  # no chunks: the C code works row by row, and a row in fp32 fits in the cache
        matmul=loss.matmul if fp16 is None else functools.partial(matmul, fp16),
        softmax_gradient=functools.partial(softmax_gradient, c),
        transposed=functools.partial(transposed, c),
        add_weight_gradient=functools.partial(add_weight_gradient_c, c),
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
    """`loss.cross_entropy`, with in-place gradient accumulation if asked for and possible.

    Args:
        parts: the functions that compute it.
        in_place: if the tokens are a single group in fp32, the backward adds the weight's gradient to `weight.grad`.
    """
    in_fp32 = x.dtype == weight.dtype == torch.float32 and matmul_dtype in (None, torch.float32)
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if not (in_place and trains and in_fp32 and len(x) <= parts.group and weight.is_leaf):
        return loss.cross_entropy(x, weight, targets, workspace, matmul_dtype, parts)
    total: Tensor = _SingleGroupLoss.apply(x, weight, targets, workspace, parts)
    return total, (targets != IGNORE).sum()


class _SingleGroupLoss(torch.autograd.Function):
    """The loss of a single group of tokens, in fp32.

    The gradient of the logits stays in the workspace until the backward, whose matmul adds to `weight.grad` in place.
    This saves a second tensor of the weight's size, which for few tokens would be the largest of all.
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
            raise RuntimeError("another forward overwrote these logits before their backward")
        scale = grad_outputs[0]
        grad_x = parts.matmul(grad_logits, weight) * scale if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            weight.grad = parts.matmul(grad_logits.T, x * scale, weight.grad, add=weight.grad is not None)
        return grad_x, None, None, None, None


def matmul(fp16: Fp16Matmul, a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
    """`loss.matmul`, computed in fp16 for fp32 matrices."""
    return fp16(a, b, out, add=add) if a.dtype == torch.float32 else loss.matmul(a, b, out, add=add)


def softmax_gradient(c: CKernels, logits: Tensor, targets: Tensor) -> Tensor:
    """`loss.softmax_gradient` in C; the gradient of an ignored row is zero.

    Raises:
        IndexError: a target is V or larger.
    """
    n, V = logits.shape
    if logits.dtype not in TYPES or not logits.is_contiguous():
        return loss.softmax_gradient(logits, targets)
    if n and targets.max() >= V:
        raise IndexError(f"target {int(targets.max())} is out of range: there are {V} logits")
    targets = targets.contiguous()
    losses, workspace = (torch.empty(size, dtype=torch.float32, device="cpu") for size in (n, c.threads * V))
    c.library.cross_entropy_forward_backward(
        *(logits.data_ptr(), n, V, TYPES[logits.dtype], targets.data_ptr()),
        *(losses.data_ptr(), workspace.data_ptr(), c.threads),
    )
    return losses.sum()


def transposed(c: CKernels, weight: Tensor) -> Tensor:
    """The weight (V, C) as (C, V). In bf16 it is copied, because oneDNN is slow with a transposed right operand."""
    return transpose(c, weight.contiguous()) if weight.dtype == torch.bfloat16 else loss.transposed(weight)


def add_weight_gradient(sums: Tensor | None, grad_logits: Tensor, x: Tensor, multiply: Matmul) -> Tensor:
    """grad_logits (n, V)^T x (n, C), in fp32, added to `sums`; see `loss.add_weight_gradient`.

    In 16 bits on a CPU, oneDNN copies a transposed left operand once for every part of the result. So the smaller
    matrix is transposed and multiplied from the left instead.
    """
    if x.dtype == torch.float32:
        return loss.add_weight_gradient(sums, grad_logits, x, multiply)
    gradient = (x.T.contiguous() @ grad_logits).T
    return gradient.float() if sums is None else sums.add_(gradient)


def add_weight_gradient_c(c: CKernels, sums: Tensor | None, grad_logits: Tensor, x: Tensor, multiply: Matmul) -> Tensor:
    """The same; in bf16 the result is transposed, converted to fp32 and added in a single loop in C."""
    if x.dtype != torch.bfloat16:
        return add_weight_gradient(sums, grad_logits, x, multiply)
    gradient = transpose(c, x.contiguous()) @ grad_logits  # (C, V)
    C, V = gradient.shape
    overwrite = sums is None
    sums = x.new_empty(V, C, dtype=torch.float32) if sums is None else sums
    c.library.add_transposed(gradient.data_ptr(), C, V, sums.data_ptr(), overwrite, c.threads)
    return sums


def transpose(c: CKernels, x: Tensor) -> Tensor:
    """x (n, m) in bf16, contiguous, as (m, n)."""
    n, m = x.shape
    y = x.new_empty(m, n)
    c.library.transpose(x.data_ptr(), n, m, y.data_ptr(), c.threads)
    return y
