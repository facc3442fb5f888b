"""Chooses the operations of a network on a CPU: in C if a compiler is available, else the fastest in PyTorch."""

from __future__ import annotations

import dataclasses
import functools

import torch

from acorn.kernels import attention, attention_fp16, block, cross_entropy, linear
from acorn.kernels.block import CKernels
from acorn.kernels.build import TYPES, Unavailable, c_library, unavailability_note
from acorn.kernels.dropout import dropout
from acorn.kernels.embedding import embedding
from acorn.kernels.matmul import fp16_matmul
from acorn.model.ops import Ops
from acorn.runtime.device import Runtime


def cpu_ops(runtime: Runtime, matmul_dtype: torch.dtype | None, in_place_gradients: bool) -> Ops:
    """The operations of a network that is trained on a CPU. With torch.compile, only the loss is in C.

    Args:
        matmul_dtype: type that matmuls round their inputs to; None: no rounding.
        in_place_gradients: whether the backward adds to `weight.grad` directly; see `choose.training_ops`.
    """
    library, fp16 = c_library("training"), fp16_matmul(runtime)
    c = None if isinstance(library, Unavailable) else CKernels(library, runtime.threads)
    parts = cross_entropy.pytorch_parts(runtime.compile) if c is None else cross_entropy.parts_in_c(c, fp16)
    ops = Ops(
        matmul_dtype=matmul_dtype,
        dropout=dropout,
        attention=functools.partial(attention.attention, attention.attention_weights),
        cross_entropy=functools.partial(cross_entropy.cross_entropy, parts, in_place_gradients and c is not None),
    )
    if in_place_gradients:
        ops = dataclasses.replace(ops, embedding=embedding)
    if c is not None and not runtime.compile:
        ops = dataclasses.replace(
            ops,
            rmsnorm=functools.partial(block.rmsnorm, c, matmul_dtype),
            qk_norm_rope=functools.partial(block.qk_norm_rope, c),
            attention=functools.partial(attention.attention, functools.partial(block.attention_weights, c)),
            swiglu=functools.partial(block.swiglu, c),
            gelu=functools.partial(block.gelu, c),
        )
    if fp16 is not None:
        ops = dataclasses.replace(
            ops,
            linear=functools.partial(linear.linear, fp16, in_place_gradients),
            attention=functools.partial(attention_fp16.attention, CKernels(fp16.library, fp16.threads)),
        )
    return ops


def is_fused(runtime: Runtime) -> bool:
    """Whether the operations between a block's matmuls are fused: by torch.compile, or in C."""
    return runtime.compile or (runtime.dtype in TYPES and "blocks" in parts_in_c(runtime))


def parts_in_c(runtime: Runtime) -> list[str]:
    """The parts of a training step on `runtime` that are acorn's C code, by their names in environment.json."""
    if runtime.device != "cpu" or isinstance(c_library("training"), Unavailable):
        return []
    return ["loss", "blocks", *(["matmuls", "attention"] if runtime.fp16_matmuls else [])]


def c_code_note(runtime: Runtime) -> str | None:
    """A line for the user if the C code of training steps is unavailable or could not be cached; else None."""
    if runtime.device != "cpu":
        return None
    names = ("training", "fp16") if runtime.fp16_matmuls else ("training",)
    return unavailability_note(map(c_library, names), "Training steps are slower than they could be")
