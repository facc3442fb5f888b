"""Parameters, FLOPs and optimizer memory of a network, computed from its config."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from acorn.config import ModelConfig
from acorn.model.gpt import GPT


@dataclass(frozen=True)
class Size:
    """Parameters and FLOPs of a network.

    Attributes:
        parameters: all parameters; a tied matrix counts once.
        matrix_parameters: parameters that every token is multiplied with (no embeddings, norms or biases).
        flops_per_token: FLOPs of a training step per token, forward and backward.
    """

    parameters: int
    matrix_parameters: int
    flops_per_token: int


def size_of(config: ModelConfig) -> Size:
    """Counts the parameters by building the network on the meta device, which takes no memory.

    A matmul costs 2 FLOPs per weight in the forward and 4 in the backward. Attention adds scores and weighted sums:
    2 x 2 x T x C in the forward of each layer, halved because it is causal, and twice that in the backward (Kaplan et
    al. 2020; Chowdhery et al. 2022, appendix B, which also counts the masked half).
    """
    with torch.device("meta"):
        model = GPT(config)
    named = dict(model.named_parameters())
    matrices = sum(p.numel() for name, p in named.items() if p.ndim == 2 and not name.endswith("embedding.weight"))
    if config.is_tied:
        matrices += config.vocab_size * config.n_embd
    attention = 6 * config.n_layer * config.block_size * config.heads * config.head_dim
    total = sum(parameter.numel() for parameter in named.values())
    return Size(total, matrices, 6 * matrices + attention)


def optimizer_bytes(config: ModelConfig, optimizer: str) -> int:
    """Bytes of the optimizer's state.

    AdamW stores two fp32 averages of every parameter. Muon stores one fp32 momentum of the blocks' matrices; AdamW
    updates the other parameters.

    Args:
        optimizer: "adamw" or "muon".
    """
    size = size_of(config)
    in_blocks = size.matrix_parameters - config.vocab_size * config.n_embd
    return 8 * size.parameters - (4 * in_blocks if optimizer == "muon" else 0)
