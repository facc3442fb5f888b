"""The operations of a network in PyTorch: the readable reference, and the fallback where no kernel is available.

A network is built with one `Ops`, a frozen dataclass of plain functions. Layers own the parameters and call the
operation with their weights. `acorn.kernels` has the same functions for CPUs and GPUs; each is tested against the one
here. Letters for sizes are those of gpt.py.
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
"""Cosines and sines of the positions' angles; see `rotary_tables`."""


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
    """x (..., in) weight (out, in)^T + bias, optionally followed by ReLU: (..., out)."""
    y = F.linear(x, weight, bias)
    return F.relu(y) if relu else y


def qk_norm_rope(x: Tensor, weight: Tensor | None, eps: float, rotation: Rotation | None) -> Tensor:
    """RMSNorm of each query or key head (Henry et al. 2020), then rotary positions (Su et al. 2021).

    Args:
        x: (B, T, heads, D).
        weight: of the norm (D,); None: no norm.
        rotation: cosines and sines; None: no rotation.

    Returns:
        (B, heads, T, D), in the type of x.
    """
    dtype = x.dtype
    if weight is not None:
        x = rmsnorm(x.to(weight.dtype), weight, eps)  # in one type: PyTorch does not fuse norms of mixed types
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
    """Zero with probability p, else x / (1 - p), for each element independently (Srivastava et al. 2014)."""
    return F.dropout(x, p)


class CrossEntropy(Protocol):
    """Activations (N, C), the head's weight (V, C), targets (N,) -> (loss sum, count); see `loss.cross_entropy`."""

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
    """The operations that a network computes with, chosen before it is built.

    Attributes:
        matmul_dtype: the type that autocast rounds the inputs of matmuls to; None: that of the activations. Norms
            return this type, so that their result is converted once for several matmuls.
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


PYTORCH_OPS = Ops()
"""All operations in PyTorch, as defined in this file."""


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> Rotation:
    """Cosines and sines of every position's angles.

    Args:
        positions: (T,) or (B, T).
        theta: base of the frequencies, which fall from 1 to almost 1 / theta radians per position.

    Returns:
        two tables (T, D) or (B, 1, T, D) in fp32; both halves of D are equal.
    """
    frequencies = 1.0 / theta ** (arange_like(0, head_dim, 2, like=positions).float() / head_dim)
    angles = positions.float()[..., None] * frequencies  # (..., T, D / 2)
    angles = torch.cat((angles, angles), dim=-1)  # (..., T, D)
    if positions.dim() == 2:
        angles = angles.unsqueeze(1)  # (B, 1, T, D)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair (i, i + D / 2) of a head's elements by its position's angle. x: (B, H, T, D)."""
    first, second = x.chunk(2, dim=-1)
    rotated_half = torch.cat((-second, first), dim=-1)
    return x * cos + rotated_half * sin


def arange_like(start: int, end: int, step: int = 1, *, like: Tensor) -> Tensor:
    """torch.arange(start, end, step), on the device and in the type of `like`."""
    return torch.arange(start, end, step, out=like.new_empty(len(range(start, end, step))))
