"""Builds the network of a run and its optimizers on the runtime's device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from acorn.config import Config
from acorn.kernels.choose import training_ops
from acorn.kernels.matmul import fp16_matmul
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.model.loss import Workspace
from acorn.runtime.device import Runtime
from acorn.train.optimizer import Optimizer, build_optimizers


@dataclass(frozen=True)
class Network:
    """The model of a run and its optimizers.

    Attributes:
        begin: sets the model's weights to those that the run began with.
    """

    model: GPT
    optimizers: list[Optimizer]
    begin: Callable[[], None]


def build_network(
    config: Config,
    runtime: Runtime,
    workspace: Workspace | None = None,
    *,
    head: HeadSpec | None = None,
    lora: LoraSpec | None = None,
) -> tuple[GPT, list[Optimizer]]:
    """Model and optimizers for `config` and `runtime`. The weights are not yet initialized.

    Args:
        workspace: memory for the head's logits; None: the head allocates its own.
        head: a label head in place of the language model's.
        lora: what is trained beside frozen weights.
    """
    ops = training_ops(runtime, in_place_gradients=True)  # a single process accumulates the gradients
    with torch.device(runtime.device):
        model = GPT(config.model, ops, workspace, head=head, lora=lora, frozen=config.finetune.freeze)
    # Muon iterates in bf16, unless the run is in fp32, or has fp16 matmuls of fp32 tensors, which are faster.
    muon_dtype = torch.float32 if runtime.dtype == torch.float32 else torch.bfloat16
    return model, build_optimizers(model, config.optimizer, muon_dtype=muon_dtype, matmul=fp16_matmul(runtime))
