"""Causal attention for training on CPUs, where PyTorch's fused kernel is slow backwards.

Written out as batched matmuls, a block of queries at a time against the keys up to its end, so that nothing is
computed far above the diagonal. For 16 x 256 tokens with 4 heads of 64, forward and backward take half the time of
`scaled_dot_product_attention` (docs/performance.md); past LONGEST tokens the fused kernel, which keeps no weights for
the backward pass, is as fast. That kernel knows no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from acorn.kernels.dropout import dropout
from acorn.model import ops

BLOCK = 256
"""Queries at a time."""

LONGEST = 768
"""Tokens up to which this way pays where no weight is dropped."""

Weights = Callable[[Tensor, Tensor, int], Tensor]
"""As `attention_weights`."""


def is_training(q: Tensor, k: Tensor, mask: Tensor | None) -> bool:
    """Whether a backward pass may follow, and all keys are those of the queries' own tokens."""
    return torch.is_grad_enabled() and mask is None and q.size(2) == k.size(2)


def attention(weights: Weights, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """As `ops.attention`, for training written out.

    Args:
        weights: attention's.
    """
    if is_training(q, k, mask) and (q.size(2) <= LONGEST or dropout_p):
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
    for begin in range(0, T, BLOCK):
        end = min(begin + BLOCK, T)
        kept = dropout(weights(q[:, begin:end], k[:, :end], begin), dropout_p)
        parts.append(kept @ v[:, :end])
    return torch.cat(parts, dim=1).view(B, H, T, D)


def attention_weights(q: Tensor, k: Tensor, begin: int) -> Tensor:
    """softmax(q k^T / sqrt(D), causal).

    Args:
        q: queries (N, Q, D), of the tokens from `begin` on.
        k: keys (N, begin + Q, D).

    Returns:
        (N, Q, begin + Q).
    """
    future = torch.full((q.size(1), k.size(1)), -math.inf, dtype=q.dtype, device=q.device).triu(begin + 1)
    return torch.baddbmm(future.expand(len(q), -1, -1), q, k.mT, alpha=q.size(-1) ** -0.5).softmax(-1)
