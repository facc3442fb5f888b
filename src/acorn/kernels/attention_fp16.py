"""Attention in C for CPUs with fp16 instructions: fp16 matmuls; attention weights are recomputed in the backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acorn.kernels.attention import is_training
from acorn.kernels.block import CKernels
from acorn.kernels.prototypes import Dropout, Heads
from acorn.model import ops


def attention(c: CKernels, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """`ops.attention` for training, equal up to fp16 rounding. Dropout draws different random numbers.

    Args:
        c: the library `fp16`.

    Raises:
        MemoryError: the workspace could not be allocated.
    """
    if not is_training(q, k, mask) or q.dtype != torch.float32:
        return ops.attention(q, k, v, mask, dropout_p)
    dropout = Dropout(0, 0, 1.0)
    if dropout_p:
        seed = int(torch.empty((), dtype=torch.int64).random_())
        dropout = Dropout(seed, min(round(2**32 * dropout_p), 2**32 - 1), 1 / (1 - dropout_p))
    y: Tensor = _Attention.apply(*map(_with_contiguous_rows, (q, k, v)), dropout, c)
    return y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: Dropout, c: CKernels) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.rest = dropout, c
        B, H, T, D = q.shape
        y = q.new_empty(B, T, H, D).transpose(1, 2)  # the output projection needs a token's heads contiguous
        tensors = map(_heads, (q, k, v, y))
        if c.library.attention_forward(*tensors, B, H, k.size(1), T, D, D**-0.5, dropout, c.threads):
            raise MemoryError("no memory for the workspace of attention")
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dropout, c = ctx.rest
        B, H, T, D = q.shape
        grad_y = _with_contiguous_rows(grad_outputs[0])
        grads = [torch.empty_like(x) for x in (q, k, v)]
        tensors = map(_heads, (q, k, v, grad_y, *grads))
        if c.library.attention_backward(*tensors, B, H, k.size(1), T, D, D**-0.5, dropout, c.threads):
            raise MemoryError("no memory for the workspace of attention")
        return *grads, None, None


def attention_workspace(block_size: int, head_dim: int, threads: int) -> int:
    """Approximate bytes of the C functions' workspace: for each thread a packed head and the scores of 48 queries."""
    slices = 2 * (_parts(head_dim, 128) * _parts(block_size, 64) + _parts(block_size, 128) * _parts(head_dim, 64))
    return threads * (2_600_000 + slices * 128 * 64 * 2 + 2 * 48 * 4 * block_size)


def _parts(n: int, size: int) -> int:
    return -(-n // size)


def _heads(x: Tensor) -> Heads:
    return Heads(x.data_ptr(), *x.stride()[:3])


def _with_contiguous_rows(x: Tensor) -> Tensor:
    """x if its last dimension is contiguous, else a contiguous copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
