"""The functions of csrc/ and the structures they take, as ctypes types.

A test compares them with the C files.
"""

from __future__ import annotations

import ctypes
from typing import Any

POINTER, INT32, INT64, FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class Heads(ctypes.Structure):
    """`heads` of attention_fp16.c: strides of a (B, H, T, D) tensor, in elements."""

    _fields_ = (("values", POINTER), ("sequence", INT64), ("head", INT64), ("token", INT64))


class Dropout(ctypes.Structure):
    """`dropout` of attention_fp16.c."""

    _fields_ = (("seed", ctypes.c_uint64), ("threshold", ctypes.c_uint32), ("scale", FLOAT))


class Weights(ctypes.Structure):
    """`weights` of decode_weights.h: a matrix with its scales and bias."""

    _fields_ = (("weight", POINTER), ("scale", POINTER), ("bias", POINTER), ("rows", INT32), ("columns", INT32))


class DecodeNorm(ctypes.Structure):
    """`decode_norm` of decode.c."""

    _fields_ = (("weight", POINTER), ("bias", POINTER), ("eps", FLOAT))


class DecodeBlock(ctypes.Structure):
    """`decode_block` of decode.c."""

    _fields_ = (
        *((name, DecodeNorm) for name in ("attention_norm", "q_norm", "k_norm", "mlp_norm")),
        *((name, Weights) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
    )


class DecodeModel(ctypes.Structure):
    """`decode_model` of decode.c."""

    _fields_ = (
        *((name, INT32) for name in ("n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "mlp_hidden")),
        *((name, INT32) for name in ("activation", "type", "n_threads", "batch_invariant")),
        ("blocks", ctypes.POINTER(DecodeBlock)),
        *((name, POINTER) for name in ("token_embedding", "position_embedding", "cosines", "sines")),
        ("final_norm", DecodeNorm),
        ("head", Weights),
    )


class DecodeCache(ctypes.Structure):
    """`decode_cache` of decode.c."""

    _fields_ = (
        *((name, POINTER) for name in ("keys", "values", "slots", "positions")),
        *((name, INT32) for name in ("type", "batch", "n_slots", "length")),
    )


class Sampling(ctypes.Structure):
    """`sampling` of sample.c."""

    _fields_ = (
        *(("seen", POINTER), ("n_seen", INT64), ("draw", ctypes.c_double)),
        *((name, FLOAT) for name in ("temperature", "top_p", "min_p", "repetition_penalty")),
        *((name, INT32) for name in ("top_k", "greedy")),
    )


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "heads": Heads,
    "dropout": Dropout,
    "weights": Weights,
    "decode_norm": DecodeNorm,
    "decode_block": DecodeBlock,
    "decode_model": DecodeModel,
    "decode_cache": DecodeCache,
    "sampling": Sampling,
}
"""Name of a C structure -> its ctypes type."""

_NORM: list[Any] = [POINTER, INT32, POINTER, FLOAT, INT64, INT64]
_HEADS: list[Any] = [POINTER, INT32, POINTER, FLOAT, POINTER, POINTER, *[INT64] * 4]
_STRIDED: list[Any] = [POINTER, *[INT64] * 3]
_SIZES: list[Any] = [*[INT64] * 5, FLOAT, Dropout, INT32]

PROTOTYPES: dict[str, dict[str, tuple[Any, list[Any]]]] = {
    "training": {
        "rmsnorm_forward": (None, [*_NORM, POINTER, INT32, INT32]),
        "rmsnorm_backward": (None, [*_NORM, POINTER, INT32, POINTER, POINTER, INT32]),
        "qk_norm_rope_forward": (None, [*_HEADS, POINTER, INT32]),
        "qk_norm_rope_backward": (None, [*_HEADS, POINTER, POINTER, POINTER, INT32]),
        "causal_softmax_forward": (None, [POINTER, INT32, INT64, INT64, INT64, FLOAT, INT32]),
        "causal_softmax_backward": (None, [POINTER, POINTER, INT32, INT64, INT64, INT64, FLOAT, POINTER, INT32]),
        "swiglu_forward": (None, [POINTER, POINTER, INT32, INT64, POINTER, INT32]),
        "swiglu_backward": (None, [POINTER, POINTER, INT32, INT64, POINTER, POINTER, POINTER, INT32]),
        "gelu_forward": (None, [POINTER, INT32, INT64, POINTER, INT32]),
        "gelu_backward": (None, [POINTER, INT32, INT64, POINTER, POINTER, INT32]),
        "cross_entropy_forward_backward": (None, [POINTER, INT64, INT64, INT32, POINTER, POINTER, POINTER, INT32]),
        "transpose": (None, [POINTER, INT64, INT64, POINTER, INT32]),
        "add_transposed": (None, [POINTER, INT64, INT64, POINTER, INT32, INT32]),
    },
    "fp16": {
        "matmul_fp16": (INT32, [*_STRIDED, *_STRIDED, POINTER, *[INT64] * 6, INT32, POINTER, INT32, INT32]),
        "has_fp16_instructions": (INT32, []),
        "attention_forward": (INT32, [*[Heads] * 4, *_SIZES]),
        "attention_backward": (INT32, [*[Heads] * 7, *_SIZES]),
        "attention_workspace_bytes": (INT64, [INT64, INT64]),
    },
    "decode": {
        "decode": (None, [*[POINTER] * 4, INT32, *[POINTER] * 2]),
        "decode_workspace_floats": (INT64, [POINTER] * 2),
        "sample": (None, [POINTER, INT64, INT64, POINTER, INT64, POINTER, POINTER, INT32, POINTER]),
        "sample_workspace_floats": (INT64, [INT64, INT32]),
    },
}
"""Library -> function -> type of the result, and types of the arguments."""


def declare(library: ctypes.CDLL, name: str) -> ctypes.CDLL:
    """Declares the functions of `library`, which is the one called `name`, to ctypes."""
    for function, (result, arguments) in PROTOTYPES[name].items():
        found = getattr(library, function)
        found.restype, found.argtypes = result, arguments
    return library
