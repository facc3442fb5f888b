"""Attention in C where the CPU multiplies fp16: its matmuls in fp16, its weights recomputed in the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acorn.kernels.attention import is_training
from acorn.kernels.block import InC
from acorn.kernels.prototypes import Dropout, Heads
from acorn.model import ops


def attention(c: InC, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """As `ops.attention`, for training up to fp16's rounding. Dropout takes other weights.

    Args:
        c: the library `fp16`.

    Raises:
        MemoryError: there is none for the scores of a few queries.
    """
    if not is_training(q, k, mask) or q.dtype != torch.float32:
        return ops.attention(q, k, v, mask, dropout_p)
    dropout = Dropout(0, 0, 1.0)
    if dropout_p:
        seed = int(torch.empty((), dtype=torch.int64).random_())
        dropout = Dropout(seed, min(round(2**32 * dropout_p), 2**32 - 1), 1 / (1 - dropout_p))
    y: Tensor = _Attention.apply(*map(_rows_in_one_piece, (q, k, v)), dropout, c)
    return y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: Dropout, c: InC) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.rest = dropout, c
        B, H, T, D = q.shape
        y = q.new_empty(B, T, H, D).transpose(1, 2)  # so that a token's heads lie side by side for the projection
        tensors = map(_heads, (q, k, v, y))
        if c.library.attention_forward(*tensors, B, H, k.size(1), T, D, D**-0.5, dropout, c.threads):
            raise MemoryError("no memory for attention's scores")
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dropout, c = ctx.rest
        B, H, T, D = q.shape
        grad_y = _rows_in_one_piece(grad_outputs[0])
        grads = [torch.empty_like(x) for x in (q, k, v)]
        tensors = map(_heads, (q, k, v, grad_y, *grads))
        if c.library.attention_backward(*tensors, B, H, k.size(1), T, D, D**-0.5, dropout, c.threads):
            raise MemoryError("no memory for attention's scores")
        return *grads, None, None


def attention_workspace(block_size: int, head_dim: int, threads: int) -> int:
    """Bytes that the functions in C take while they run, about: of each thread a packed head and 48 queries' scores."""
    slices = 2 * (_parts(head_dim, 128) * _parts(block_size, 64) + _parts(block_size, 128) * _parts(head_dim, 64))
    return threads * (2_600_000 + slices * 128 * 64 * 2 + 2 * 48 * 4 * block_size)


def _parts(n: int, size: int) -> int:
    return -(-n // size)


def _heads(x: Tensor) -> Heads:
    return Heads(x.data_ptr(), *x.stride()[:3])


def _rows_in_one_piece(x: Tensor) -> Tensor:
    """x where its last dimension is contiguous, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
