"""Compilation of the model's blocks with torch.compile. `model/gpt.py` does not depend on it."""

from __future__ import annotations

import contextlib

import torch

from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime


def compile_model(model: GPT) -> None:
    """Compiles the blocks in place, at their first call. The loss is compiled when the network is built.

    The blocks are compiled separately: they are alike, so one compilation serves all layers, however many there are
    (PyTorch calls this regional compilation).
    """
    for block in model.blocks:
        block.compile(dynamic=False)


def uncompiled(runtime: Runtime) -> contextlib.AbstractContextManager[object]:
    """Inside the block a compiled model runs eagerly, because other shapes than a training step's recompile it."""
    return torch.compiler.set_stance("force_eager") if runtime.compile else contextlib.nullcontext()
