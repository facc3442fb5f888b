"""What a block does beside its products, in C: RMSNorm, rotation, attention's softmax, SwiGLU and GELU.

PyTorch's own operations for these take as long as all products do (docs/lab-notebook.md). The modules here take the
places of the model's and have the same parameters; where an input is not what the C takes, they do as the model's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from acorn.model.attention import CausalAttention
from acorn.model.gpt import GELU, GPT, PlaceHeads, SwiGLU, product_dtype
from acorn.runtime.c_library import TYPES, c_library
from acorn.runtime.device import Runtime


class NativeRMSNorm(nn.RMSNorm):
    """The same as nn.RMSNorm, up to rounding; under autocast its result has the type of products.

    Args:
        original: whose weight it shares; its eps is given.
    """

    def __init__(self, original: nn.RMSNorm, library: ctypes.CDLL, threads: int) -> None:
        super().__init__(original.normalized_shape, original.eps)
        self.weight = original.weight
        self._library, self._threads = library, threads

    def forward(self, x: Tensor) -> Tensor:
        dtype = product_dtype(x)
        if not {x.dtype, dtype} <= TYPES.keys() or self.weight.dtype != torch.float32:
            return super().forward(x)
        return _RMSNorm.apply(x.contiguous(), self.weight, self.eps, dtype, self._library, self._threads)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype, library: ctypes.CDLL, threads: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = eps, library, threads
        y = torch.empty_like(x, dtype=dtype)
        C = x.size(-1)
        library.rms_norm(
            *(x.data_ptr(), TYPES[x.dtype], weight.data_ptr(), eps),
            *(x.numel() // C, C, y.data_ptr(), TYPES[dtype], threads),
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        eps, library, threads = ctx.rest
        grad_y, grad_x, C = grad_outputs[0].contiguous(), torch.empty_like(x), x.size(-1)
        grad_weights = weight.new_zeros(threads, C)
        library.rms_norm_backward(
            *(x.data_ptr(), TYPES[x.dtype], weight.data_ptr(), eps, x.numel() // C, C),
            *(grad_y.data_ptr(), TYPES[grad_y.dtype], grad_x.data_ptr(), grad_weights.data_ptr(), threads),
        )
        return grad_x, grad_weights.sum(0), None, None, None, None


class _InC(nn.Module):
    """What a module without parameters needs besides: native_block.c, loaded, and the threads that share the work."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        super().__init__()
        self._library, self._threads = library, threads


class NativePlaceHeads(_InC, PlaceHeads):
    """The same as PlaceHeads, up to rounding."""

    def forward(self, x: Tensor, norm: nn.RMSNorm | None, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        known = x.dtype in TYPES and (norm is None or norm.weight.dtype == torch.float32)
        if not known or rotation is None or rotation[0].dim() != 2:
            return super().forward(x, norm, rotation)
        weight, eps = (None, 0.0) if norm is None else (norm.weight, norm.eps)
        return _PlaceHeads.apply(x.contiguous(), weight, eps, *rotation, self._library, self._threads)


class _PlaceHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        eps: float,
        cosines: Tensor,
        sines: Tensor,
        library: ctypes.CDLL,
        threads: int,
    ) -> Tensor:
        B, T, H, D = x.shape
        ctx.save_for_backward(x, weight, cosines, sines)
        ctx.rest = eps, library, threads
        y = x.new_empty(B, H, T, D)
        library.place_heads(
            *(x.data_ptr(), TYPES[x.dtype], None if weight is None else weight.data_ptr(), eps),
            *(cosines.data_ptr(), sines.data_ptr(), B, T, H, D, y.data_ptr(), threads),
        )
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, cosines, sines = ctx.saved_tensors
        eps, library, threads = ctx.rest
        grad_y, grad_x = grad_outputs[0].contiguous(), torch.empty_like(x)
        grad_weights = cosines.new_zeros(threads, x.size(-1))
        library.place_heads_backward(
            *(x.data_ptr(), TYPES[x.dtype], None if weight is None else weight.data_ptr(), eps),
            *(cosines.data_ptr(), sines.data_ptr(), *x.shape, grad_y.data_ptr(), grad_x.data_ptr()),
            *(grad_weights.data_ptr(), threads),
        )
        return grad_x, None if weight is None else grad_weights.sum(0), None, None, None, None, None


class NativeCausalAttention(_InC, CausalAttention):
    """The same as CausalAttention, up to rounding."""

    def weights(self, q: Tensor, k: Tensor, begin: int) -> Tensor:
        if q.dtype not in TYPES:
            return super().weights(q, k, begin)
        return _CausalSoftmax.apply(q @ k.mT, q.size(-1) ** -0.5, self._library, self._threads)


class _CausalSoftmax(torch.autograd.Function):
    """In place."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, scale: float, library: ctypes.CDLL, threads: int) -> Tensor:
        library.causal_softmax(scores.data_ptr(), TYPES[scores.dtype], *scores.shape, scale, threads)
        ctx.mark_dirty(scores)
        ctx.save_for_backward(scores)
        ctx.rest = scale, library, threads
        return scores

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        scale, library, threads = ctx.rest
        grad, grad_scores = grad_outputs[0].contiguous(), torch.empty_like(weights)
        library.causal_softmax_backward(
            *(weights.data_ptr(), grad.data_ptr(), TYPES[weights.dtype], *weights.shape, scale),
            *(grad_scores.data_ptr(), threads),
        )
        return grad_scores, None, None, None


class NativeSwiGLU(_InC, SwiGLU):
    """The same as SwiGLU, up to rounding."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        if gate.dtype not in TYPES:
            return super().forward(gate, up)
        return _SwiGLU.apply(gate.contiguous(), up.contiguous(), self._library, self._threads)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, library: ctypes.CDLL, threads: int) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.rest = library, threads
        y = torch.empty_like(gate)
        library.swiglu(gate.data_ptr(), up.data_ptr(), TYPES[gate.dtype], gate.numel(), y.data_ptr(), threads)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        library, threads = ctx.rest
        grad_y, grad_gate, grad_up = grad_outputs[0].contiguous(), torch.empty_like(gate), torch.empty_like(up)
        library.swiglu_backward(
            *(gate.data_ptr(), up.data_ptr(), TYPES[gate.dtype], gate.numel()),
            *(grad_y.data_ptr(), grad_gate.data_ptr(), grad_up.data_ptr(), threads),
        )
        return grad_gate, grad_up, None, None


class NativeGELU(_InC, GELU):
    """The same as GELU, up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in TYPES:
            return super().forward(x)
        return _GELU.apply(x.contiguous(), self._library, self._threads)


class _GELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, library: ctypes.CDLL, threads: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.rest = library, threads
        y = torch.empty_like(x)
        library.gelu(x.data_ptr(), TYPES[x.dtype], x.numel(), y.data_ptr(), threads)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        library, threads = ctx.rest
        grad_y, grad_x = grad_outputs[0].contiguous(), torch.empty_like(x)
        library.gelu_backward(x.data_ptr(), TYPES[x.dtype], x.numel(), grad_y.data_ptr(), grad_x.data_ptr(), threads)
        return grad_x, None, None


NATIVE: dict[type, Callable[[ctypes.CDLL, int], nn.Module]] = {
    CausalAttention: NativeCausalAttention,
    PlaceHeads: NativePlaceHeads,
    SwiGLU: NativeSwiGLU,
    GELU: NativeGELU,
}
"""Module without parameters -> what takes its place."""


def use_native_blocks(model: GPT, runtime: Runtime) -> None:
    """Lets `model` take RMSNorm, rotation, attention's softmax, SwiGLU and GELU in C where that can be had."""
    library = native_block_library(runtime.device)
    if isinstance(library, str):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.RMSNorm:
                setattr(module, name, NativeRMSNorm(child, library, runtime.threads))
            elif type(child) in NATIVE:
                setattr(module, name, NATIVE[type(child)](library, runtime.threads))


def native_block_library(device: str) -> ctypes.CDLL | str:
    """native_block.c, compiled and loaded, or why it is not used."""
    if device != "cpu":
        return f"the model is on {device}, not on the CPU"
    library = c_library("acorn.train", "native_block")
    if not isinstance(library, str):
        pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
        norm: list[Any] = [pointer, number, pointer, real, size, size]
        heads: list[Any] = [pointer, number, pointer, real, pointer, pointer, *[size] * 4]
        for name, types in {
            "rms_norm": [*norm, pointer, number, number],
            "rms_norm_backward": [*norm, pointer, number, pointer, pointer, number],
            "place_heads": [*heads, pointer, number],
            "place_heads_backward": [*heads, pointer, pointer, pointer, number],
            "causal_softmax": [pointer, number, size, size, size, real, number],
            "causal_softmax_backward": [pointer, pointer, number, size, size, size, real, pointer, number],
            "swiglu": [pointer, pointer, number, size, pointer, number],
            "swiglu_backward": [pointer, pointer, number, size, pointer, pointer, pointer, number],
            "gelu": [pointer, number, size, pointer, number],
            "gelu_backward": [pointer, number, size, pointer, pointer, number],
        }.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, None
    return library
