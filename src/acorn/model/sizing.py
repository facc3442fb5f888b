"""Parameters, FLOPs and optimizer memory of a network, computed from its config."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec, is_new


@dataclass(frozen=True)
class Size:
    """Parameters and FLOPs of a network.

    Attributes:
        parameters: all parameters; a tied matrix counts once.
        trained_parameters: those that training changes.
        matrix_parameters: parameters that every token is multiplied with (no embeddings, norms or biases).
        muon_parameters: those that Muon updates, if it is used: the trained matrices of the blocks.
        flops_per_token: FLOPs of a training step per token, forward and backward, if every parameter is trained.
    """

    parameters: int
    trained_parameters: int
    matrix_parameters: int
    muon_parameters: int
    flops_per_token: int


def size_of(config: ModelConfig, head: HeadSpec | None = None, lora: LoraSpec | None = None, frozen: int = 0) -> Size:
    """Counts the parameters by building the network on the meta device, which takes no memory.

    A matmul costs 2 FLOPs per weight in the forward and 4 in the backward. Attention adds scores and weighted sums:
    2 x 2 x T x C in the forward of each layer, halved because it is causal, and twice that in the backward (Kaplan et
    al. 2020; Chowdhery et al. 2022, appendix B, which also counts the masked half).

    Args:
        head: a label head in place of the language model's.
        lora: what is trained beside frozen weights.
        frozen: number of first blocks that are not trained.
    """
    with torch.device("meta"):
        model = GPT(config, head=head, lora=lora, frozen=frozen)
    named = dict(model.named_parameters())
    matrices = sum(p.numel() for name, p in named.items() if p.ndim == 2 and "embedding." not in name)
    if head is None and config.is_tied:
        matrices += config.vocab_size * config.n_embd
    attention = 6 * config.n_layer * config.block_size * config.heads * config.head_dim
    trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    in_blocks = (p for name, p in trained.items() if name.startswith("blocks.") and p.ndim == 2 and not is_new(name))
    return Size(
        parameters=sum(parameter.numel() for parameter in named.values()),
        trained_parameters=sum(parameter.numel() for parameter in trained.values()),
        matrix_parameters=matrices,
        muon_parameters=sum(parameter.numel() for parameter in in_blocks),
        flops_per_token=6 * matrices + attention,
    )


def optimizer_bytes(
    config: ModelConfig,
    optimizer: str,
    head: HeadSpec | None = None,
    lora: LoraSpec | None = None,
    frozen: int = 0,
) -> int:
    """Bytes of the optimizer's state.

    AdamW stores two fp32 averages of every trained parameter. Muon stores one fp32 momentum of the blocks' matrices;
    AdamW updates the other parameters.

    Args:
        optimizer: "adamw" or "muon".
        head: a label head in place of the language model's.
        lora: what is trained beside frozen weights.
        frozen: number of first blocks that are not trained.
    """
    size = size_of(config, head, lora, frozen)
    return 8 * size.trained_parameters - (4 * size.muon_parameters if optimizer == "muon" else 0)
