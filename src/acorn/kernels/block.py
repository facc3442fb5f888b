"""What a block does beside its matmuls, in C: RMSNorm, norm and rotation of heads, attention's softmax, SwiGLU, GELU.

PyTorch's own operations for these take as long as all matmuls do (docs/lab-notebook.md). Each function here is the one
of `model.ops` with its name, up to rounding; where an input is not what the C takes, it is that one.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acorn.kernels import attention
from acorn.kernels.build import TYPES
from acorn.model import ops


@dataclass(frozen=True)
class InC:
    """A library of csrc/, loaded, and the threads that share its work."""

    library: ctypes.CDLL
    threads: int


def rmsnorm(c: InC, matmul_dtype: torch.dtype | None, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `ops.rmsnorm`, its result in the type of matmuls."""
    dtype = matmul_dtype or x.dtype
    if not {x.dtype, dtype} <= TYPES.keys() or weight.dtype != torch.float32:
        return ops.rmsnorm(x, weight, eps)
    y: Tensor = _RMSNorm.apply(x.contiguous(), weight, eps, dtype, c)
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, c: InC) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = eps, c
        y = torch.empty_like(x, dtype=dtype)
        C = x.size(-1)
        c.library.rmsnorm_forward(
            *(x.data_ptr(), TYPES[x.dtype], weight.data_ptr(), eps),
            *(x.numel() // C, C, y.data_ptr(), TYPES[dtype], c.threads),
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        eps, c = ctx.rest
        grad_y, grad_x, C = grad_outputs[0].contiguous(), torch.empty_like(x), x.size(-1)
        grad_weights = weight.new_zeros(c.threads, C)
        c.library.rmsnorm_backward(
            *(x.data_ptr(), TYPES[x.dtype], weight.data_ptr(), eps, x.numel() // C, C),
            *(grad_y.data_ptr(), TYPES[grad_y.dtype], grad_x.data_ptr(), grad_weights.data_ptr(), c.threads),
        )
        return grad_x, grad_weights.sum(0), None, None, None


def qk_norm_rope(c: InC, x: Tensor, weight: Tensor | None, eps: float, rotation: ops.Rotation | None) -> Tensor:
    """As `ops.qk_norm_rope`."""
    known = x.dtype in TYPES and (weight is None or weight.dtype == torch.float32)
    if not known or rotation is None or rotation[0].dim() != 2:
        return ops.qk_norm_rope(x, weight, eps, rotation)
    y: Tensor = _QKNormRope.apply(x.contiguous(), weight, eps, *rotation, c)
    return y


class _QKNormRope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, cosines: Tensor, sines: Tensor, c: InC
    ) -> Tensor:
        B, T, H, D = x.shape
        ctx.save_for_backward(x, weight, cosines, sines)
        ctx.rest = eps, c
        y = x.new_empty(B, H, T, D)
        c.library.qk_norm_rope_forward(
            *(x.data_ptr(), TYPES[x.dtype], None if weight is None else weight.data_ptr(), eps),
            *(cosines.data_ptr(), sines.data_ptr(), B, T, H, D, y.data_ptr(), c.threads),
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, cosines, sines = ctx.saved_tensors
        eps, c = ctx.rest
        grad_y, grad_x = grad_outputs[0].contiguous(), torch.empty_like(x)
        grad_weights = cosines.new_zeros(c.threads, x.size(-1))
        c.library.qk_norm_rope_backward(
            *(x.data_ptr(), TYPES[x.dtype], None if weight is None else weight.data_ptr(), eps),
            *(cosines.data_ptr(), sines.data_ptr(), *x.shape, grad_y.data_ptr(), grad_x.data_ptr()),
            *(grad_weights.data_ptr(), c.threads),
        )
        return grad_x, None if weight is None else grad_weights.sum(0), None, None, None, None


def attention_weights(c: InC, q: Tensor, k: Tensor, begin: int) -> Tensor:
    """As `attention.attention_weights`."""
    if q.dtype not in TYPES:
        return attention.attention_weights(q, k, begin)
    weights: Tensor = _CausalSoftmax.apply(q @ k.mT, q.size(-1) ** -0.5, c)
    return weights


class _CausalSoftmax(torch.autograd.Function):
    """In place."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scale: float, c: InC) -> Tensor:
        c.library.causal_softmax_forward(scores.data_ptr(), TYPES[scores.dtype], *scores.shape, scale, c.threads)
        ctx.mark_dirty(scores)
        ctx.save_for_backward(scores)
        ctx.rest = scale, c
        return scores

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        scale, c = ctx.rest
        grad, grad_scores = grad_outputs[0].contiguous(), torch.empty_like(weights)
        c.library.causal_softmax_backward(
            *(weights.data_ptr(), grad.data_ptr(), TYPES[weights.dtype], *weights.shape, scale),
            *(grad_scores.data_ptr(), c.threads),
        )
        return grad_scores, None, None


def swiglu(c: InC, gate: Tensor, up: Tensor) -> Tensor:
    """As `ops.swiglu`."""
    if gate.dtype not in TYPES:
        return ops.swiglu(gate, up)
    y: Tensor = _SwiGLU.apply(gate.contiguous(), up.contiguous(), c)
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, c: InC) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.c = c
        y = torch.empty_like(gate)
        c.library.swiglu_forward(
            gate.data_ptr(), up.data_ptr(), TYPES[gate.dtype], gate.numel(), y.data_ptr(), c.threads
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        c = ctx.c
        grad_y, grad_gate, grad_up = grad_outputs[0].contiguous(), torch.empty_like(gate), torch.empty_like(up)
        c.library.swiglu_backward(
            *(gate.data_ptr(), up.data_ptr(), TYPES[gate.dtype], gate.numel()),
            *(grad_y.data_ptr(), grad_gate.data_ptr(), grad_up.data_ptr(), c.threads),
        )
        return grad_gate, grad_up, None


def gelu(c: InC, x: Tensor) -> Tensor:
    """As `ops.gelu`."""
    if x.dtype not in TYPES:
        return ops.gelu(x)
    y: Tensor = _GELU.apply(x.contiguous(), c)
    return y


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, c: InC) -> Tensor:
        ctx.save_for_backward(x)
        ctx.c = c
        y = torch.empty_like(x)
        c.library.gelu_forward(x.data_ptr(), TYPES[x.dtype], x.numel(), y.data_ptr(), c.threads)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        c = ctx.c
        grad_y, grad_x = grad_outputs[0].contiguous(), torch.empty_like(x)
        c.library.gelu_backward(
            x.data_ptr(), TYPES[x.dtype], x.numel(), grad_y.data_ptr(), grad_x.data_ptr(), c.threads
        )
        return grad_x, None
