"""The decoding step of csrc/decode.c, called instead of PyTorch's.

It takes what is there: a C compiler (build.py), a CPU, weights of fp32 or bf16. Where something is missing PyTorch
decodes, with the same results up to rounding.
"""

from __future__ import annotations

import ctypes
from typing import Any, Literal

import torch
from torch import Tensor

from acorn.config import ModelConfig
from acorn.kernels.build import TYPES, Unavailable, c_library, what_to_tell
from acorn.kernels.prototypes import DecodeBlock, DecodeCache, DecodeModel, DecodeNorm, Weights
from acorn.model.gpt import GPT
from acorn.model.int8 import quantize_rows
from acorn.model.kv_cache import KVCache
from acorn.model.ops import rotary_tables

WeightType = Literal["fp32", "bf16", "int8"]

WEIGHT_TYPES = {"fp32": 0, "bf16": 1, "int8": 2}
"""simd.h's `enum type`."""

ACTIVATIONS = {"original": 0, "gpt2": 1, "modern": 2}
"""decode.c's `enum activation`."""

KNOWN = frozenset(
    {
        *(
            "architecture",
            "n_layer",
            "n_head",
            "n_kv_head",
            "n_embd",
            "n_inner",
            "head_width",
            "block_size",
            "vocab_size",
        ),
        *("tied", "qk_norm", "norm_eps", "rope_theta"),
        "dropout",  # which only training knows
    }
)
"""Settings of the network that decode.c does as `model.gpt` does, or that mean nothing for it."""


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
        self.library = library
        self._weight_type = weight_type
        self._kept: list[Any] = []  # what the C side points to
        config = model.config
        self.vocab_size = config.vocab_size
        blocks = (DecodeBlock * config.n_layer)(*(self._block(block) for block in model.blocks))
        learned = model.position_embedding
        positions = torch.arange(config.block_size)
        rotation = (None, None) if learned else rotary_tables(positions, model.head_dim, config.rope_theta)
        self._model = DecodeModel(
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
        self._workspace = torch.empty(0)

    def __call__(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Reads one token of each sequence (B,), adds it to the cache, and gives the logits after it (B, V)."""
        batch = ids.numel()
        starts = torch.zeros(batch, dtype=torch.long) if cache.starts is None else cache.starts
        kv = DecodeCache(
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            starts.data_ptr(),
            TYPES[cache.keys.dtype],
            batch,
            cache.keys.size(3),
            cache.position,
        )
        floats = self.library.decode_workspace_floats(ctypes.byref(self._model), ctypes.byref(kv))
        if self._workspace.numel() < floats:
            self._workspace = torch.empty(floats)
        logits = torch.empty(batch, self.vocab_size)
        self.library.decode(
            ctypes.byref(self._model), ctypes.byref(kv), ids.data_ptr(), self._workspace.data_ptr(), logits.data_ptr()
        )
        cache.advance(1)
        return logits

    def _block(self, block: Any) -> DecodeBlock:
        attention, mlp = block.attention, block.mlp
        return DecodeBlock(
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

    def _norm(self, module: Any) -> DecodeNorm:
        if module is None:
            return DecodeNorm()
        bias = getattr(module, "bias", None)
        return DecodeNorm(self._floats(module.weight), self._floats(bias), module.eps)

    def _matrix(self, module: Any) -> Weights:
        if module is None:
            return Weights()
        weight, scales = module.weight, None
        if self._weight_type == "int8":
            weight, scales = quantize_rows(weight)
        elif self._weight_type == "bf16":
            weight = weight.to(torch.bfloat16)
        bias = getattr(module, "bias", None)
        return Weights(self._pointer(weight), self._floats(scales), self._floats(bias), *weight.shape)

    def _floats(self, tensor: Tensor | None) -> int | None:
        return None if tensor is None else self._pointer(tensor.float())

    def _pointer(self, tensor: Tensor) -> int:
        tensor = tensor.detach().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def native_decoder(model: GPT, dtype: torch.dtype, *, int8: bool = False) -> NativeDecoder | Unavailable:
    """The compiled decoding step for `model`, or why it cannot be had.

    Args:
        dtype: of matmuls, and so of keys and values.
        int8: the weights are read as int8 instead.
    """
    place = model.head.weight.device.type
    if place != "cpu":
        return Unavailable(f"the model is on {place}, not on the CPU")
    if dtype not in TYPES:
        return Unavailable(f"acorn's C code does not compute in {str(dtype).removeprefix('torch.')}")
    if unknown := unknown_settings(model.config):
        return Unavailable(f"acorn's C code does not know {', '.join(f'model.{name}' for name in unknown)}")
    library = c_library("decode")
    weight_type: WeightType = "int8" if int8 else "bf16" if dtype == torch.bfloat16 else "fp32"
    return library if isinstance(library, Unavailable) else NativeDecoder(model, weight_type, library)


def c_code_note(library: ctypes.CDLL | Unavailable) -> str | None:
    """What a user should know about the C code of decoding on a CPU: why it is not used, or slow to start, if so."""
    return what_to_tell([library], "Generation is slower than it could be")


def unknown_settings(config: ModelConfig) -> list[str]:
    """Settings of the network that decode.c was not written for: they came after it, or have a new value."""
    unknown = [name for name in type(config).model_fields if name not in KNOWN]
    return unknown + (["architecture"] if config.architecture not in ACTIVATIONS else [])
