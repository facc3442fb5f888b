"""What is put around the model from outside: compilation. `model/gpt.py` knows nothing of it."""

from __future__ import annotations

import contextlib

import torch

from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime


def compile_model(model: GPT) -> None:
    """Compiles the blocks in place, when they are first called. The loss was compiled when the network was built.

    Block by block: they are all alike, so that one compilation serves every layer and takes as long for 48 as for one
    (PyTorch calls it regional compilation).
    """
    for block in model.blocks:
        block.compile(dynamic=False)


def uncompiled(runtime: Runtime) -> contextlib.AbstractContextManager[object]:
    """Inside the block a compiled model runs eagerly: other shapes than a training step's would be compiled anew."""
    return torch.compiler.set_stance("force_eager") if runtime.compile else contextlib.nullcontext()
