"""Parameter and FLOP counts, compared with closed forms."""

from __future__ import annotations

import pytest

from acorn.config import ModelConfig
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.model.sizing import optimizer_bytes, size_of


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


@pytest.mark.parametrize("tied", [True, False])
def test_a_label_head_replaces_that_of_the_vocabulary(tied: bool) -> None:
    config = ModelConfig(n_layer=1, n_embd=64, vocab_size=1000, tied=tied)
    size, head = size_of(config, HeadSpec("tag", 5, bias=True)), 5 * 64
    blocks = 4 * 64**2 + 3 * 64 * config.mlp_hidden
    assert size.matrix_parameters == blocks + head
    assert size.parameters == size.trained_parameters == blocks + head + 5 + 1000 * 64 + 3 * 64 + 2 * 64
    assert size.muon_parameters == blocks


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_of_the_optimizers_state(tied: bool) -> None:
    """AdamW: two fp32 averages of each parameter; Muon: one momentum of the blocks' matrices."""
    config = ModelConfig(n_layer=2, n_embd=64, vocab_size=1000, tied=tied)
    blocks = 2 * (4 * 64**2 + 3 * 64 * config.mlp_hidden)
    for head in (None, HeadSpec("class", 3)):
        total = size_of(config, head).parameters
        assert optimizer_bytes(config, "adamw", head) == 8 * total
        assert optimizer_bytes(config, "muon", head) == 8 * (total - blocks) + 4 * blocks


@pytest.mark.parametrize("tied", [True, False])
def test_lora_trains_its_factors_and_rows_alone(tied: bool) -> None:
    """Rank times the sum of each matrix's sides; AdamW's two averages of them, also where Muon is asked for."""
    config = ModelConfig(n_layer=2, n_embd=64, vocab_size=1000, tied=tied)
    lora = LoraSpec(4, 8.0, markup_ids=(1, 2, 3))
    base, size = size_of(config), size_of(config, lora=lora)
    factors = 2 * 4 * (4 * (64 + 64) + 3 * (64 + config.mlp_hidden))
    rows = 3 * 64 * (1 if tied else 2)
    assert size.trained_parameters == factors + rows
    assert size.parameters == base.parameters + factors + rows
    assert size.muon_parameters == 0
    for optimizer in ("adamw", "muon"):
        assert optimizer_bytes(config, optimizer, lora=lora) == 8 * (factors + rows)


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_blocks_have_no_optimizer_state(tied: bool) -> None:
    config = ModelConfig(n_layer=3, n_embd=64, vocab_size=1000, tied=tied)
    block = 4 * 64**2 + 3 * 64 * config.mlp_hidden
    one, all_blocks = size_of(config, frozen=1), size_of(config, HeadSpec("class", 5), frozen=3)
    norms = 2 * 64 + 2 * config.head_dim
    assert one.trained_parameters == 2 * (block + norms) + 64 + (0 if tied else 1000 * 64)
    assert one.muon_parameters == 2 * block
    assert all_blocks.trained_parameters == 5 * 64
    assert optimizer_bytes(config, "adamw", HeadSpec("class", 5), frozen=3) == 8 * 5 * 64
