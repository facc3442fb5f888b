"""Counts against closed forms."""

from __future__ import annotations

import pytest

from acorn.config import ModelConfig
from acorn.model.sizing import size_of, training_memory


def test_flops_of_a_training_step() -> None:
    """6 for each weight that multiplies, and 6 T C a layer for causal attention; GPT-2 small's numbers by hand."""
    config = ModelConfig(architecture="gpt2", n_layer=12, n_embd=768, block_size=1024, vocab_size=50_257)
    size = size_of(config)
    matrices = 12 * 12 * 768**2 + 50_257 * 768
    assert size.parameters == 124_439_808
    assert size.matrix_parameters == matrices
    assert size.flops_per_token == 6 * matrices + 6 * 12 * 1024 * 768


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_still_multiplies(tied: bool) -> None:
    config = ModelConfig(n_layer=1, n_embd=64, vocab_size=1000, tied=tied)
    size = size_of(config)
    assert size.matrix_parameters == 4 * 64**2 + 3 * 64 * config.mlp_hidden + 1000 * 64
    assert size.parameters - size.matrix_parameters == (0 if tied else 1000 * 64) + 3 * 64 + 2 * 64


@pytest.mark.parametrize(
    ("architecture", "block_size", "width", "device", "dropped", "whole"),
    [
        ("gpt2", 512, 2, "cpu", 6, 2),
        ("gpt2", 1024, 2, "cpu", 6, 0),  # the fused kernel keeps nothing, but knows no dropout
        ("gpt2", 1024, 4, "cpu", 12, 0),
        ("gpt2", 1024, 2, "cuda", 0, 0),
        ("gpt2", 1024, 4, "cuda", 24, 0),
        ("modern", 512, 2, "cpu", 2, 2),  # drops no weights
    ],
)
def test_what_attention_keeps_of_its_weights(
    architecture: str, block_size: int, width: int, device: str, dropped: int, whole: int
) -> None:
    """Bytes for each of its T x T weights, as far as they hang on the number of heads."""

    def kept(dropout: float) -> float:
        shape = {"architecture": architecture, "n_layer": 1, "n_embd": 64, "block_size": block_size, "dropout": dropout}
        two, four = (ModelConfig(**shape, n_head=n, n_kv_head=n, vocab_size=100) for n in (2, 4))
        of_two, of_four = (training_memory(config, "adamw", 1, width, device, False) for config in (two, four))
        return (of_four - of_two) / (2 * block_size**2)

    assert (round(kept(0.1)), round(kept(0.0))) == (dropped, whole)


@pytest.mark.parametrize(
    ("changes", "batch_size", "in_bf16", "in_fp32"),
    [({}, 16, 406, 699), ({}, 32, 712, 1211), ({"n_embd": 512}, 16, 845, 1377)],
)
def test_memory_of_a_step_in_c_on_a_cpu(changes: dict[str, int], batch_size: int, in_bf16: int, in_fp32: int) -> None:
    """MiB that processes were seen to take more than before their first step (docs/lab-notebook.md)."""
    config = ModelConfig(**{"n_layer": 4, "n_embd": 256, "block_size": 256, "vocab_size": 8192, **changes})
    told = [training_memory(config, "adamw", batch_size, width, "cpu", True) / 2**20 for width in (2, 4)]
    assert told == pytest.approx([in_bf16, in_fp32], rel=0.15)
