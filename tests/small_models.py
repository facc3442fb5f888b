"""Small models whose parameters all differ from what they start as."""

from __future__ import annotations

import torch

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer


def model_for(tokenizer: Tokenizer, architecture: str, **more: object) -> GPT:
    """No parameter keeps a value that would hide a mistake."""
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 64} | more
    model = GPT(ModelConfig(architecture=architecture, vocab_size=tokenizer.vocab_size, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * noise + (parameter.ndim == 1))
    return model.eval()
