"""Small models whose parameters all differ from what they start as, and folders of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_models import model_for

from acorn.checkpoint.model_folder import write_model_folder
from acorn.export import runtimes
from acorn.export.probe_texts import BASES
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

CARD = "---\nlicense: mit\n---\n# card"
TEXTS = ["The quick brown fox jumps over the lazy dog. " * 20, *BASES] * 5


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer with merges in every script of the adversarial strings, so that different splits are noticed."""
    return train(lambda: iter(TEXTS), "bpe", 1200)


@pytest.fixture(scope="session")
def build() -> Callable[..., GPT]:
    return model_for


@pytest.fixture
def folder(tokenizer: Tokenizer, tmp_path: Path) -> Callable[..., Path]:
    """Writes a model folder of an architecture."""

    def write(architecture: str, **more: object) -> Path:
        path = tmp_path / "a model"
        write_model_folder(path, model_for(tokenizer, architecture, **more), tokenizer, CARD)
        return path

    return write


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes an export believe that neither transformers nor llama.cpp is installed."""
    monkeypatch.setattr(runtimes.Runtime, "installed", False)
