"""The network of a run and its optimizers, on the machine's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from acorn.config import Config
from acorn.kernels.choose import training_ops
from acorn.kernels.matmul import fp16_matmul
from acorn.model.gpt import GPT
from acorn.model.loss import Workspace
from acorn.runtime.device import Runtime
from acorn.train.optimizer import Optimizer, build_optimizers


@dataclass(frozen=True)
class Network:
    """What a run trains.

    Attributes:
        begin: gives the model the weights that the run began with.
    """

    model: GPT
    optimizers: list[Optimizer]
    begin: Callable[[], None]


def build_network(config: Config, runtime: Runtime, workspace: Workspace | None = None) -> tuple[GPT, list[Optimizer]]:
    """Model and optimizers as `config` and `runtime` ask for them. The weights have yet to be drawn or restored.

    Args:
        workspace: where the head writes logits; None: memory of its own.
    """
    ops = training_ops(runtime, in_place_gradients=True)  # one process accumulates them
    with torch.device(runtime.device):
        model = GPT(config.model, ops, workspace)
    # Muon iterates in bf16 unless the run is to be exact, or has matmuls of fp32 tensors that are faster.
    muon_dtype = torch.float32 if runtime.dtype == torch.float32 else torch.bfloat16
    return model, build_optimizers(model, config.optimizer, muon_dtype=muon_dtype, product=fp16_matmul(runtime))
