"""The decoding step of decode.c, called instead of PyTorch's.

It takes what is there: a C compiler (runtime/c_library.py), a CPU, weights of fp32 or bf16. Where something is missing
PyTorch decodes, with the same results up to rounding.
"""

from __future__ import annotations

import ctypes
from typing import Any, Literal

import torch
from torch import Tensor

from acorn.model.gpt import GPT, rotary_tables
from acorn.model.int8 import quantize_rows
from acorn.model.kv_cache import KVCache
from acorn.runtime.c_library import TYPES, c_library

WeightType = Literal["fp32", "bf16", "int8"]

WEIGHT_TYPES = {"fp32": 0, "bf16": 1, "int8": 2}
"""vectors.h's `enum type`."""

ACTIVATIONS = {"original": 0, "gpt2": 1, "modern": 2}
"""decode.c's `enum activation`."""


class NativeDecoder:
    """A model's weights as decode.c takes them.

    Weights that have `weight_type` already stay where they are; others are copied, so that a change of the model
    afterwards does not reach the decoder.

    Args:
        model: on the CPU.
        weight_type: of the matrices. Everything else is fp32, but for the inputs of products where tiles multiply bf16,
            or int8 is multiplied with integers of 16 bits.
    """

    def __init__(self, model: GPT, weight_type: WeightType, library: ctypes.CDLL) -> None:
        self._library = library
        self._weight_type = weight_type
        self._kept: list[Any] = []  # what the C side points to
        config = model.config
        self.vocab_size = config.vocab_size
        blocks = (_Block * config.n_layer)(*(self._block(block) for block in model.blocks))
        learned = model.position_embedding
        positions = torch.arange(config.block_size)
        rotation = (None, None) if learned else rotary_tables(positions, model.head_dim, config.rope_theta)
        self._model = _Model(
            config.n_layer,
            config.heads,
            config.kv_heads,
            model.head_dim,
            config.n_embd,
            config.mlp_hidden,
            ACTIVATIONS[config.architecture],
            WEIGHT_TYPES[weight_type],
            torch.get_num_threads(),
            blocks,
            self._floats(model.token_embedding.weight),
            self._floats(None if learned is None else learned.weight),
            self._floats(rotation[0]),
            self._floats(rotation[1]),
            self._norm(model.final_norm),
            self._matrix(model.head),
        )
        self._room = torch.empty(0)

    def __call__(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Reads one token of each sequence (B,), adds it to the cache, and gives the logits after it (B, V)."""
        batch = ids.numel()
        starts = torch.zeros(batch, dtype=torch.long) if cache.starts is None else cache.starts
        kv = _Cache(
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            starts.data_ptr(),
            TYPES[cache.keys.dtype],
            batch,
            cache.keys.size(3),
            cache.position,
        )
        room = self._library.decode_room(ctypes.byref(self._model), ctypes.byref(kv))
        if self._room.numel() < room:
            self._room = torch.empty(room)
        logits = torch.empty(batch, self.vocab_size)
        self._library.decode(
            ctypes.byref(self._model), ctypes.byref(kv), ids.data_ptr(), self._room.data_ptr(), logits.data_ptr()
        )
        cache.advance(1)
        return logits

    def _block(self, block: Any) -> _Block:
        attention, mlp = block.attention, block.mlp
        return _Block(
            self._norm(block.attention_norm),
            self._norm(attention.q_norm),
            self._norm(attention.k_norm),
            self._norm(block.mlp_norm),
            self._matrix(attention.q_proj),
            self._matrix(attention.k_proj),
            self._matrix(attention.v_proj),
            self._matrix(attention.o_proj),
            self._matrix(getattr(mlp, "gate_proj", None)),
            self._matrix(mlp.up_proj),
            self._matrix(mlp.down_proj),
        )

    def _norm(self, module: Any) -> _Norm:
        if module is None:
            return _Norm()
        bias = getattr(module, "bias", None)
        return _Norm(self._floats(module.weight), self._floats(bias), module.eps)

    def _matrix(self, module: Any) -> _Matrix:
        if module is None:
            return _Matrix()
        weight, scales = module.weight, None
        if self._weight_type == "int8":
            weight, scales = quantize_rows(weight)
        elif self._weight_type == "bf16":
            weight = weight.to(torch.bfloat16)
        bias = getattr(module, "bias", None)
        return _Matrix(self._pointer(weight), self._floats(scales), self._floats(bias), *weight.shape)

    def _floats(self, tensor: Tensor | None) -> int | None:
        return None if tensor is None else self._pointer(tensor.float())

    def _pointer(self, tensor: Tensor) -> int:
        tensor = tensor.detach().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def native_decoder(model: GPT, dtype: torch.dtype, *, int8: bool = False) -> NativeDecoder | str:
    """The compiled decoding step for `model`, or why it cannot be had.

    Args:
        dtype: of products, and so of keys and values.
        int8: the weights are read as int8 instead.
    """
    place = model.head.weight.device.type
    if place != "cpu":
        return f"the model is on {place}, not on the CPU"
    if dtype not in TYPES:
        return f"it does not compute in {str(dtype).removeprefix('torch.')}"
    library = compiled_library()
    weight_type: WeightType = "int8" if int8 else "bf16" if dtype == torch.bfloat16 else "fp32"
    return library if isinstance(library, str) else NativeDecoder(model, weight_type, library)


def compiled_library() -> ctypes.CDLL | str:
    """decode.c, compiled and loaded, or why not."""
    library = c_library("acorn.generate", "decode")
    if not isinstance(library, str):
        library.decode_room.restype = ctypes.c_int64
        library.decode_room.argtypes = [ctypes.c_void_p] * 2
        library.decode.restype = None
        library.decode.argtypes = [ctypes.c_void_p] * 5
    return library


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        *((name, ctypes.c_int32) for name in ("rows", "columns")),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float)]


class _Block(ctypes.Structure):
    _fields_ = [
        *((name, _Norm) for name in ("attention_norm", "q_norm", "k_norm", "mlp_norm")),
        *((name, _Matrix) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                *("n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "mlp_hidden"),
                *("activation", "type", "n_threads"),
            )
        ),
        ("blocks", ctypes.POINTER(_Block)),
        *((name, ctypes.c_void_p) for name in ("token_embedding", "position_embedding", "cosines", "sines")),
        ("final_norm", _Norm),
        ("head", _Matrix),
    ]


class _Cache(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values", "starts")),
        *((name, ctypes.c_int32) for name in ("type", "batch", "length", "position")),
    ]
