"""What an exported model is asked fits its context, however short that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from acorn.export import probe as module
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize("block_size", [1, 2, 3, 33])
def test_a_short_context_gets_as_many_greedy_tokens(
    monkeypatch: pytest.MonkeyPatch, build: Callable[..., GPT], tokenizer: Tokenizer, architecture: str, block_size: int
) -> None:
    """The number of greedy tokens is equal for all models; each is the most likely after the preceding tokens."""
    lines = [f"The fox {n} jumps over {n * n} dogs." for n in range(300)]
    monkeypatch.setattr(module, "held_out_lines", lambda folder, tokenizer: (lines, {"here": len(lines)}))
    monkeypatch.setattr(module, "adversarial_strings", lambda tokenizer: [])
    model = build(tokenizer, architecture, block_size=block_size)
    asked = module.probe(model, tokenizer, Path())
    assert sum(len(ids) for _, ids in asked.question.continuations) == module.GREEDY_TOKENS
    assert all(1 <= len(window) <= block_size for window in asked.question.windows)
    for prompt, ids in asked.question.continuations[:5]:
        assert prompt
        read = [*prompt, *ids[:-1]]
        assert len(read) <= block_size
        with torch.no_grad():
            logits = model(torch.tensor([read]))[0, len(prompt) - 1 :]
        assert logits.argmax(-1).tolist() == ids
    for window, logits in zip(asked.question.windows, asked.logits, strict=True):
        assert logits.shape == (len(window), tokenizer.vocab_size)
