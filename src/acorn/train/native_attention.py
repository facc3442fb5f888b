"""Attention in C where the CPU multiplies fp16, its products in fp16 and its weights kept nowhere."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from acorn.model.attention import CausalAttention
from acorn.model.gpt import GPT
from acorn.runtime.c_library import c_library
from acorn.runtime.device import Runtime


class Fp16CausalAttention(CausalAttention):
    """The same as CausalAttention, up to fp16's rounding, for any number of tokens. Dropout takes other weights.

    Args:
        library: native_attention.c, loaded.
        threads: that share the heads.
        original: that takes its place where the numbers are not fp32.
    """

    longest = math.inf

    def __init__(self, library: ctypes.CDLL, threads: int, original: CausalAttention) -> None:
        super().__init__()
        self._library, self._threads, self._original = library, threads, original

    def forward(self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        """As CausalAttention.forward.

        Raises:
            MemoryError: there is none for the scores of a few queries.
        """
        if q.dtype != torch.float32:
            result: Tensor = self._original(q, k, v, dropout_p)
            return result
        dropout = _Dropout(0, 0, 1.0)
        if dropout_p:
            seed = int(torch.empty((), dtype=torch.int64).random_())
            dropout = _Dropout(seed, min(round(2**32 * dropout_p), 2**32 - 1), 1 / (1 - dropout_p))
        y: Tensor = _Attention.apply(*map(_rows_in_one_piece, (q, k, v)), dropout, self._library, self._threads)
        return y


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: _Dropout, library: ctypes.CDLL, threads: int
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.rest = dropout, library, threads
        B, H, T, D = q.shape
        y = q.new_empty(B, T, H, D).transpose(1, 2)  # so that a token's heads lie side by side for the projection
        if library.causal_attention(*map(_heads, (q, k, v, y)), B, H, k.size(1), T, D, D**-0.5, dropout, threads):
            raise MemoryError("no memory for attention's scores")
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dropout, library, threads = ctx.rest
        B, H, T, D = q.shape
        grad_y = _rows_in_one_piece(grad_outputs[0])
        grads = [torch.empty_like(x) for x in (q, k, v)]
        tensors = map(_heads, (q, k, v, grad_y, *grads))
        if library.causal_attention_backward(*tensors, B, H, k.size(1), T, D, D**-0.5, dropout, threads):
            raise MemoryError("no memory for attention's scores")
        return *grads, None, None, None


def use_fp16_attention(model: GPT, runtime: Runtime) -> None:
    """Lets `model` take its attention in C, with products in fp16, where that can be had."""
    library = native_attention_library()
    if isinstance(library, str):
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, CausalAttention):
                setattr(module, name, Fp16CausalAttention(library, runtime.threads, child))


def attention_room(block_size: int, head_dim: int, threads: int) -> int:
    """Bytes that the functions in C take while they run, about: of each thread a packed head and 48 queries' scores."""
    slices = 2 * (_parts(head_dim, 128) * _parts(block_size, 64) + _parts(block_size, 128) * _parts(head_dim, 64))
    return threads * (2_600_000 + slices * 128 * 64 * 2 + 2 * 48 * 4 * block_size)


def _parts(n: int, size: int) -> int:
    return -(-n // size)


def native_attention_library() -> ctypes.CDLL | str:
    """native_attention.c, compiled and loaded, or why it is not used."""
    library = c_library("acorn.train", "native_attention")
    if not isinstance(library, str):
        rest: list[Any] = [*[ctypes.c_int64] * 5, ctypes.c_float, _Dropout, ctypes.c_int32]
        library.causal_attention.argtypes = [*[_Heads] * 4, *rest]
        library.causal_attention_backward.argtypes = [*[_Heads] * 7, *rest]
        library.workspace_size.argtypes, library.workspace_size.restype = [ctypes.c_int64] * 2, ctypes.c_int64
        library.causal_attention.restype = library.causal_attention_backward.restype = ctypes.c_int32
    return library


class _Heads(ctypes.Structure):
    """native_attention.c's `heads`."""

    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("sequence", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("token", ctypes.c_int64),
    )


class _Dropout(ctypes.Structure):
    """native_attention.c's `dropout`."""

    _fields_ = (("seed", ctypes.c_uint64), ("under", ctypes.c_uint32), ("scale", ctypes.c_float))


def _heads(x: Tensor) -> _Heads:
    return _Heads(x.data_ptr(), *x.stride()[:3])


def _rows_in_one_piece(x: Tensor) -> Tensor:
    """x where its last dimension is contiguous, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()
