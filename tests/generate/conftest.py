"""Real tokenizers learned from a few lines, and networks that can be told what to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from small_models import LINES, random_model_of

from acorn.config import ModelConfig
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="session")
def lines() -> list[str]:
    return LINES


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture(scope="session")
def wordpiece() -> Tokenizer:
    return train(lambda: LINES, "wordpiece", 200)


def _chain_model(vocab_size: int, successors: Mapping[int, int], block_size: int = 64) -> GPT:
    """A network whose most likely token after t is `successors[t]` (t itself by default), whatever came before.

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
    return random_model_of


@pytest.fixture
def chain_model() -> Callable[..., GPT]:
    return _chain_model
