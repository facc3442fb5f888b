"""A block's operations other than matmuls, in C: RMSNorm, QK-norm with rotary positions, causal softmax, SwiGLU, GELU.

Without them these operations take a large part of a training step (docs/lab-notebook.md). Each function computes what
the function of the same name in `model.ops` computes, up to rounding, and calls it for inputs that the C code does not
support.
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
class CKernels:
    """A loaded library of csrc/, and the number of threads its functions use."""

    library: ctypes.CDLL
    threads: int


def rmsnorm(c: CKernels, matmul_dtype: torch.dtype | None, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`ops.rmsnorm`, with the result in the type of matmuls."""
    dtype = matmul_dtype or x.dtype
    if not {x.dtype, dtype} <= TYPES.keys() or weight.dtype != torch.float32:
        return ops.rmsnorm(x, weight, eps)
    y: Tensor = _RMSNorm.apply(x.contiguous(), weight, eps, dtype, c)
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, c: CKernels) -> Tensor:
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
        return grad_x, grad_weights.sum(0) if ctx.needs_input_grad[1] else None, None, None, None


def qk_norm_rope(c: CKernels, x: Tensor, weight: Tensor | None, eps: float, rotation: ops.Rotation | None) -> Tensor:
    """RMSNorm and rotary positions of query or key heads; see `ops.qk_norm_rope`."""
    supported = x.dtype in TYPES and (weight is None or weight.dtype == torch.float32)
    if not supported or rotation is None or rotation[0].dim() != 2:
        return ops.qk_norm_rope(x, weight, eps, rotation)
    y: Tensor = _QKNormRope.apply(x.contiguous(), weight, eps, *rotation, c)
    return y


class _QKNormRope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, cosines: Tensor, sines: Tensor, c: CKernels
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
        return grad_x, grad_weights.sum(0) if ctx.needs_input_grad[1] else None, None, None, None, None


def attention_weights(c: CKernels, q: Tensor, k: Tensor, begin: int) -> Tensor:
    """softmax(q k^T / sqrt(D), causal) of a block of queries; see `attention.attention_weights`."""
    if q.dtype not in TYPES:
        return attention.attention_weights(q, k, begin)
    weights: Tensor = _CausalSoftmax.apply(q @ k.mT, q.size(-1) ** -0.5, c)
    return weights


class _CausalSoftmax(torch.autograd.Function):
    """Softmax of attention scores, in place."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scale: float, c: CKernels) -> Tensor:
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


def swiglu(c: CKernels, gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    if gate.dtype not in TYPES:
        return ops.swiglu(gate, up)
    y: Tensor = _SwiGLU.apply(gate.contiguous(), up.contiguous(), c)
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, c: CKernels) -> Tensor:
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


def gelu(c: CKernels, x: Tensor) -> Tensor:
    """GPT-2's GELU, approximated with tanh."""
    if x.dtype not in TYPES:
        return ops.gelu(x)
    y: Tensor = _GELU.apply(x.contiguous(), c)
    return y


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, c: CKernels) -> Tensor:
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
