"""Parameter and FLOP counts, compared with closed forms."""

from __future__ import annotations

import pytest

from acorn.config import ModelConfig
from acorn.model.sizing import size_of


def test_flops_of_a_training_step() -> None:
    """6 per weight of a matmul, and 6 T C per layer for causal attention; calculated by hand for GPT-2 small."""
    config = ModelConfig(architecture="gpt2", n_layer=12, n_embd=768, block_size=1024, vocab_size=50_257)
    size = size_of(config)
    matrices = 12 * 12 * 768**2 + 50_257 * 768
    assert size.parameters == 124_439_808
    assert size.matrix_parameters == matrices
    assert size.flops_per_token == 6 * matrices + 6 * 12 * 1024 * 768


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_counts_as_a_matmul(tied: bool) -> None:
    config = ModelConfig(n_layer=1, n_embd=64, vocab_size=1000, tied=tied)
    size = size_of(config)
    assert size.matrix_parameters == 4 * 64**2 + 3 * 64 * config.mlp_hidden + 1000 * 64
    assert size.parameters - size.matrix_parameters == (0 if tied else 1000 * 64) + 3 * 64 + 2 * 64
