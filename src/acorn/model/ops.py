"""The operations that a network is made of, in PyTorch: the readable reference, used where there is nothing faster.

A network is built with one `Ops`, a frozen value of plain functions. Layers own the parameters and call the operation
with their weights. `acorn.kernels` has the same functions for CPUs and GPUs; each is tested against the one here.
Letters for sizes are those of gpt.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from acorn.model.loss import Workspace, cross_entropy

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the positions' angles, as `rotary_tables` makes them."""


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of weight (n, C) for ids (...): (..., C)."""
    return F.embedding(ids, weight)


def layernorm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension (Ba et al. 2016)."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rmsnorm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich 2019)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False) -> Tensor:
    """x (..., in) weight (out, in)^T + bias, and ReLU of that where asked for: (..., out)."""
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


def qk_norm_rope(x: Tensor, weight: Tensor | None, eps: float, rotation: Rotation | None) -> Tensor:
    """RMSNorm of each query or key head (Henry et al. 2020), then rotation by its position (Su et al. 2021).

    Args:
        x: (B, T, heads, D).
        weight: of the norm (D,); None: no norm.
        rotation: None: none.

    Returns:
        (B, heads, T, D), in the type of x.
    """
    dtype = x.dtype
    if weight is not None:
        x = rmsnorm(x.to(weight.dtype), weight, eps)  # whatever the matmuls' type: norms over mixed types are not fused
    x = x.transpose(1, 2)  # (B, heads, T, D)
    return x if rotation is None else rotate(x, *rotation).to(dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float) -> Tensor:
    """dropout(softmax(q k^T / sqrt(D))) v; several query heads may share a key and value head.

    Args:
        q: (B, H, T, D).
        k, v: (B, K, S, D); H is a multiple of K.
        mask: which keys each query attends to, broadcastable to (B, H, T, S); None: causal.
        dropout_p: probability of dropping a weight.

    Returns:
        (B, H, T, D).
    """
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout_p,
        is_causal=mask is None and q.size(2) > 1,
        enable_gqa=q.size(1) != k.size(1),
    )


def gelu(x: Tensor) -> Tensor:
    """GPT-2's GELU, approximated with tanh (Hendrycks and Gimpel 2016)."""
    return F.gelu(x, approximate="tanh")


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020)."""
    return F.silu(gate) * up


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero with probability p, else x / (1 - p), for each element by itself (Srivastava et al. 2014)."""
    return F.dropout(x, p)


class CrossEntropy(Protocol):
    """As `loss.cross_entropy`: activations (N, C), the head's weight (V, C), targets (N,) -> (loss sum, count)."""

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        workspace: Workspace,
        matmul_dtype: torch.dtype | None = None,
        /,
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Ops:
    """What a network computes with, chosen once, before it is built.

    Attributes:
        matmul_dtype: that matmuls round their inputs to, where autocast does; None: that of the activations. Norms
            before several matmuls give their result in it, so that it is converted once.
    """

    embedding: Callable[[Tensor, Tensor], Tensor] = embedding
    layernorm: Callable[[Tensor, Tensor, Tensor, float], Tensor] = layernorm
    rmsnorm: Callable[[Tensor, Tensor, float], Tensor] = rmsnorm
    linear: Callable[[Tensor, Tensor, Tensor | None, bool], Tensor] = linear
    qk_norm_rope: Callable[[Tensor, Tensor | None, float, Rotation | None], Tensor] = qk_norm_rope
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor] = attention
    gelu: Callable[[Tensor], Tensor] = gelu
    swiglu: Callable[[Tensor, Tensor], Tensor] = swiglu
    dropout: Callable[[Tensor, float], Tensor] = dropout
    cross_entropy: CrossEntropy = cross_entropy
    matmul_dtype: torch.dtype | None = None


PYTORCH = Ops()
"""Everything as it is written here."""


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> Rotation:
    """Cosine and sine of every position's angles.

    Args:
        positions: (T,) or (B, T).
        theta: base of the angles, which fall from 1 to 1 / theta (nearly) radians a position.

    Returns:
        two tables (T, D) or (B, 1, T, D) in fp32; the two halves of D are equal.
    """
    frequencies = 1.0 / theta ** (counted(0, head_dim, 2, like=positions).float() / head_dim)
    angles = positions.float()[..., None] * frequencies  # (..., T, D / 2)
    angles = torch.cat((angles, angles), dim=-1)  # (..., T, D)
    if positions.dim() == 2:
        angles = angles.unsqueeze(1)  # (B, 1, T, D)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (first half, second half) of a head by its position's angle. x: (B, H, T, D)."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return x * cos + turned * sin


def counted(start: int, end: int, step: int = 1, *, like: Tensor) -> Tensor:
    """start, start + step, ... below end: where `like` is, and in its type."""
    return torch.arange(start, end, step, out=like.new_empty(len(range(start, end, step))))
