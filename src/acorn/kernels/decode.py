"""Native decoding: calls csrc/decode.c, which computes tokens of many sequences through the whole network.

Sequences of a batch have their own positions, so they may begin and end at any time. A sequence may get several tokens
at once, as prompts do.

Needs a CPU, a C compiler (build.py) and a model whose settings decode.c supports. Otherwise PyTorch decodes, with the
same results up to rounding.
"""

from __future__ import annotations

import ctypes
from typing import Any, Literal

import torch
from torch import Tensor

from acorn.config import ModelConfig
from acorn.kernels.build import TYPES, Unavailable, c_library, unavailability_note
from acorn.kernels.prototypes import DecodeBlock, DecodeCache, DecodeModel, DecodeNorm, Weights
from acorn.model.gpt import GPT
from acorn.model.int8 import quantize_rows
from acorn.model.kv_cache import KVCache
from acorn.model.ops import rotary_tables

WeightType = Literal["fp32", "bf16", "int8"]

WEIGHT_TYPES = {"fp32": 0, "bf16": 1, "int8": 2}
"""Type of weights -> value in simd.h's `enum type`."""

ACTIVATIONS = {"original": 0, "gpt2": 1, "modern": 2}
"""Architecture -> value in decode.c's `enum activation`."""

SUPPORTED_SETTINGS = frozenset(
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
        "dropout",  # used in training only
    }
)
"""Settings of the network that decode.c supports as `model.gpt` does, or that do not concern decoding."""


class NativeDecoder:
    """Decodes with a model's weights in C.

    Weights that have `weight_type` already are shared with the model; others are copied, so later changes of the model
    do not affect them.

    Args:
        model: on the CPU.
        weight_type: type of the matrices. Everything else is fp32, except that the inputs of matmuls are rounded to
            bf16 for AMX, and to int16 for int8 weights.
        batch_invariant: give each sequence the same logits, to the last bit, alone and in any batch. Otherwise the
            fastest method for the size of the batch is used, and methods round differently.
    """

    def __init__(
        self, model: GPT, weight_type: WeightType, library: ctypes.CDLL, *, batch_invariant: bool = False
    ) -> None:
        self.library = library
        self._weight_type = weight_type
        self._tensors: list[Any] = []  # keeps alive what the C structures point to
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
            batch_invariant,
            blocks,
            self._floats(model.token_embedding.merged_weight()),
            self._floats(None if learned is None else learned.weight),
            self._floats(rotation[0]),
            self._floats(rotation[1]),
            self._norm(model.final_norm),
            self._matrix(model.head),
        )
        self._workspace = torch.empty(0)

    def __call__(
        self, ids: Tensor, cache: KVCache, sequences: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """The forward of ids (B,): adds them to the cache and returns logits (n, V).

        Args:
            sequences: numbers of the cache's sequences that the ids continue (B,); ids of the same sequence follow
                each other there. None: the first id continues the first sequence, and so on.
            rows: which of the ids logits are wanted for (n,); None: all.

        Raises:
            ValueError: the cache is too short for them.
        """
        batch = ids.numel()
        slots = torch.arange(batch) if sequences is None else sequences
        wanted = torch.arange(batch) if rows is None else rows
        positions = cache.lengths[slots] + _occurrences(slots)
        if batch and int(positions.max()) >= cache.keys.size(3):
            raise ValueError(f"{int(positions.max()) + 1} tokens are more than the cache's {cache.keys.size(3)}")
        kv = DecodeCache(
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            slots.data_ptr(),
            positions.data_ptr(),
            TYPES[cache.keys.dtype],
            batch,
            cache.keys.size(1),
            cache.keys.size(3),
        )
        floats = self.library.decode_workspace_floats(ctypes.byref(self._model), ctypes.byref(kv))
        if self._workspace.numel() < floats:
            self._workspace = torch.empty(floats)
        logits = torch.empty(wanted.numel(), self.vocab_size)
        self.library.decode(
            ctypes.byref(self._model),
            ctypes.byref(kv),
            ids.data_ptr(),
            wanted.data_ptr(),
            wanted.numel(),
            self._workspace.data_ptr(),
            logits.data_ptr(),
        )
        cache.lengths.index_add_(0, slots, torch.ones_like(slots))
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
        weight, scales = module.merged_weight(), None
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
        self._tensors.append(tensor)
        return tensor.data_ptr()


def _occurrences(slots: Tensor) -> Tensor:
    """How often each slot occurred before (B,)."""
    if len(slots) == 1:
        return torch.zeros_like(slots)
    order = slots.argsort(stable=True)
    ordered = slots[order]
    starts = torch.searchsorted(ordered, ordered)  # where the group of each begins
    return torch.empty_like(slots).scatter_(0, order, torch.arange(len(slots)) - starts)


def native_decoder(
    model: GPT, dtype: torch.dtype, *, int8: bool = False, batch_invariant: bool = False
) -> NativeDecoder | Unavailable:
    """The native decoder for `model`, or why it is unavailable.

    Args:
        dtype: type of matmuls, and so of keys and values.
        int8: whether weights are read as int8 instead.
        batch_invariant: as for `NativeDecoder`.
    """
    if model.head is None:
        return Unavailable("the model has a label head, and predicts no tokens")
    device = model.device.type
    if device != "cpu":
        return Unavailable(f"the model is on {device}, not on the CPU")
    if dtype not in TYPES:
        return Unavailable(f"acorn's C code does not support {str(dtype).removeprefix('torch.')}")
    if unsupported := unsupported_settings(model.config):
        return Unavailable(f"acorn's C code does not support {', '.join(f'model.{name}' for name in unsupported)}")
    library = c_library("decode")
    weight_type: WeightType = "int8" if int8 else "bf16" if dtype == torch.bfloat16 else "fp32"
    if isinstance(library, Unavailable):
        return library
    return NativeDecoder(model, weight_type, library, batch_invariant=batch_invariant)


def c_code_note(library: ctypes.CDLL | Unavailable) -> str | None:
    """A line for the user if the C code of decoding is unavailable or could not be cached; else None."""
    return unavailability_note([library], "Generation is slower than it could be")


def unsupported_settings(config: ModelConfig) -> list[str]:
    """Settings of the network that decode.c does not support: fields added later, or a new architecture."""
    unsupported = [name for name in type(config).model_fields if name not in SUPPORTED_SETTINGS]
    return unsupported + (["architecture"] if config.architecture not in ACTIVATIONS else [])
