"""Parameters and FLOPs of a network, and the memory of its optimizer's state, counted before it is built."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from acorn.config import ModelConfig
from acorn.model.gpt import GPT


@dataclass(frozen=True)
class Size:
    """What a network costs.

    Attributes:
        parameters: all of them, a tied matrix once.
        matrix_parameters: those that every token is multiplied with (not lookups, norms or biases).
        flops_per_token: of a training step, forward and backward, per token.
    """

    parameters: int
    matrix_parameters: int
    flops_per_token: int


def size_of(config: ModelConfig) -> Size:
    """Counts a network by building it on the meta device, where nothing takes memory.

    A product with a matrix costs 2 FLOPs a weight forward and 4 backward. Attention adds scores and weighted sums:
    2 x 2 x T x C forward for each layer, halved by causality, and twice that backward (Kaplan et al. 2020; Chowdhery
    et al. 2022, appendix B, without their doubling for the masked half).
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

    AdamW keeps two fp32 means of every parameter. Beside Muon it has all but the blocks' matrices, of which Muon keeps
    one fp32 momentum.

    Args:
        optimizer: "adamw" or "muon".
    """
    size = size_of(config)
    in_blocks = size.matrix_parameters - config.vocab_size * config.n_embd
    return 8 * size.parameters - (4 * in_blocks if optimizer == "muon" else 0)
