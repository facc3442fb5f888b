"""Small models in which every parameter differs from its initial value."""

from __future__ import annotations

import torch

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.tokenizer.tokenizer import Tokenizer

LINES = [
    "The old oak stood where the three paths met, and nobody remembered who had planted it.",
    "An acorn fell; the squirrel, who couldn't count, buried it twice. It grew anyway.",
    "Việt Nam, ελιά, дуб, 橡树, नमस्ते, naïve café",
    "Unhappily, the winters were longer then. Walking, talked, walker, talks.",
] * 3
"""A text to train a tokenizer on."""


def model_for(tokenizer: Tokenizer, architecture: str, **more: object) -> GPT:
    """A model whose parameters have no values that could hide a mistake."""
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 64} | more
    model = GPT(ModelConfig(architecture=architecture, vocab_size=tokenizer.vocab_size, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * noise + (parameter.ndim == 1))
    return model.eval()


def classifier_for(tokenizer: Tokenizer, head: HeadSpec, **settings: object) -> GPT:
    """Outputs of the label head are far enough apart to tell networks apart."""
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 48, "block_size": 128, "vocab_size": tokenizer.vocab_size} | settings
    model = GPT(ModelConfig(**sizes), head=head)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model.eval()


def random_model_of(architecture: str, vocab_size: int, block_size: int = 16, **shape: object) -> GPT:
    """A model with weights so large that the next token depends on the text, without ties."""
    settings = {"n_layer": 2, "n_embd": 32, "n_head": 4, "tied": architecture != "original"} | shape
    if architecture == "modern":
        settings = {"n_kv_head": 2} | settings
    model = GPT(ModelConfig(architecture=architecture, vocab_size=vocab_size, block_size=block_size, **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model
