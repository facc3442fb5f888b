"""Causal attention for training on CPUs, where the backward of PyTorch's fused kernel is slow.

Written out as batched matmuls: a block of queries at a time, with the keys up to the block's end, so that little is
computed above the diagonal. This is faster than `scaled_dot_product_attention` up to MAX_UNFUSED_TOKENS tokens
(docs/lab-notebook.md); beyond that the fused kernel, which stores no weights for the backward, is as fast. The fused
kernel does not support dropout on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from acorn.kernels.dropout import dropout
from acorn.model import ops

QUERY_BLOCK = 256
"""Queries of a block."""

MAX_UNFUSED_TOKENS = 768
"""Sequence length up to which attention without dropout is written out instead of fused."""

Weights = Callable[[Tensor, Tensor, int], Tensor]
"""(queries, keys, begin) -> weights; `attention_weights` is the reference."""


def is_training(q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
    """Whether a backward may follow, and queries and keys are of the same tokens (no key/value cache)."""
    return torch.is_grad_enabled() and mask is None and q.size(2) == k.size(2)


def attention(weights: Weights, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """`ops.attention`, written out as matmuls during training.

    Args:
        weights: computes the attention weights of a block of queries.
    """
    if is_training(q, k, mask) and (q.size(2) <= MAX_UNFUSED_TOKENS or dropout_p):
        return causal_attention(weights, q, k, v, dropout_p)
    return ops.attention(q, k, v, mask, dropout_p)


def causal_attention(weights: Weights, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    """dropout(softmax(q k^T / sqrt(D), causal)) v.

    Args:
        q: (B, H, T, D).
        k, v: (B, K, T, D); H is a multiple of K.
        dropout_p: probability of dropping a weight.

    Returns:
        (B, H, T, D).
    """
    B, H, T, D = q.shape
    if k.size(1) != H:
        k, v = (x.repeat_interleave(H // k.size(1), dim=1) for x in (k, v))
    q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
    parts = []
    for begin in range(0, T, QUERY_BLOCK):
        end = min(begin + QUERY_BLOCK, T)
        dropped = dropout(weights(q[:, begin:end], k[:, :end], begin), dropout_p)
        parts.append(dropped @ v[:, :end])
    return torch.cat(parts, dim=1).view(B, H, T, D)


def attention_weights(q: Tensor, k: Tensor, begin: int) -> Tensor:
    """softmax(q k^T / sqrt(D), causal).

    Args:
        q: queries (N, Q, D) of the tokens from `begin` on.
        k: keys (N, begin + Q, D).

    Returns:
        (N, Q, begin + Q).
    """
    future = torch.full((q.size(1), k.size(1)), -math.inf, dtype=q.dtype, device=q.device).triu(begin + 1)
    return torch.baddbmm(future.expand(len(q), -1, -1), q, k.mT, alpha=q.size(-1) ** -0.5).softmax(-1)
