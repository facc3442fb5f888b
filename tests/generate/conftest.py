"""Real tokenizers learned from a few lines, and networks that can be told what to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

LINES = [
    "The old oak stood where the three paths met, and nobody remembered who had planted it.",
    "An acorn fell; the squirrel, who couldn't count, buried it twice. It grew anyway.",
    "Việt Nam, ελιά, дуб, 橡树, नमस्ते, naïve café",
    "Unhappily, the winters were longer then. Walking, talked, walker, talks.",
] * 3


@pytest.fixture(scope="session")
def lines() -> list[str]:
    return LINES


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    return train(lambda: LINES, "wordpiece", 200)


def _random_model(architecture: str, vocab_size: int, block_size: int = 16, **shape: object) -> GPT:
    """Weights large enough that the next token depends on the text and ties do not happen."""
    settings = {"n_layer": 2, "n_embd": 32, "n_head": 4, "tied": architecture != "original"} | shape
    if architecture == "modern":
        settings = {"n_kv_head": 2} | settings
    model = GPT(ModelConfig(architecture=architecture, vocab_size=vocab_size, block_size=block_size, **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    return model


def _chain_model(vocab_size: int, successors: Mapping[int, int], block_size: int = 64) -> GPT:
    """A network that says `successors[t]` after token t, whatever came before (t itself where none is named).

    Its blocks add nothing, embeddings are one-hot, and the head's row of each token lights up at its predecessors.
    """
    model = GPT(
        ModelConfig(
            architecture="original",
            tied=False,
            n_layer=1,
            n_head=1,
            n_embd=vocab_size,
            vocab_size=vocab_size,
            block_size=block_size,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
        model.token_embedding.weight.copy_(torch.eye(vocab_size))
        for token in range(vocab_size):
            model.head.weight[successors.get(token, token), token] = 1.0
    return model


@pytest.fixture
def random_model() -> Callable[..., GPT]:
    return _random_model


@pytest.fixture
def chain_model() -> Callable[..., GPT]:
    return _chain_model
