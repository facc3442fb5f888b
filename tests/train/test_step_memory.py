"""The memory estimate of a step, compared with measurements."""

from __future__ import annotations

import pytest

from acorn.config import ModelConfig
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.model.sizing import size_of
from acorn.train.step_memory import training_memory


@pytest.mark.parametrize(
    ("architecture", "block_size", "width", "device", "dropped", "whole"),
    [
        ("gpt2", 512, 2, "cpu", 6, 2),
        ("gpt2", 1024, 2, "cpu", 6, 0),  # the fused kernel saves no weights, but has no dropout
        ("gpt2", 1024, 4, "cpu", 12, 0),
        ("gpt2", 1024, 2, "cuda", 0, 0),
        ("gpt2", 1024, 4, "cuda", 24, 0),
        ("modern", 512, 2, "cpu", 2, 2),  # no dropout of weights
    ],
)
def test_attention_weights_saved_for_the_backward(
    architecture: str, block_size: int, width: int, device: str, dropped: int, whole: int
) -> None:
    """Bytes for each of its T x T weights, as far as they depend on the number of heads."""

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
    """MiB that processes were measured to need more than before their first step (docs/lab-notebook.md)."""
    config = ModelConfig(**{"n_layer": 4, "n_embd": 256, "block_size": 256, "vocab_size": 8192, **changes})
    told = [training_memory(config, "adamw", batch_size, width, "cpu", True) / 2**20 for width in (2, 4)]
    assert told == pytest.approx([in_bf16, in_fp32], rel=0.15)


@pytest.mark.parametrize(("device", "width"), [("cpu", 4), ("cpu", 2), ("cuda", 2)])
def test_a_label_head_needs_no_logits_of_the_vocabulary(device: str, width: int) -> None:
    """Weights, gradients and AdamW's state of an untied head (16 bytes each) and its logits are not needed."""
    config = ModelConfig(n_layer=2, n_embd=64, block_size=64, vocab_size=50_000, tied=False)
    model, head = (
        training_memory(config, "adamw", 8, width, device, True, head=h) for h in (None, HeadSpec("class", 3))
    )
    logits = 8 * 64 * width * 50_000
    assert model - head > 16 * 50_000 * 64 + 0.9 * logits
    assert head > training_memory(config.model_copy(update={"vocab_size": 100}), "adamw", 8, width, device, True)


@pytest.mark.parametrize(
    ("lora", "measured"),
    [
        (None, 643),
        (LoraSpec(8, 16.0), 204),
        (LoraSpec(8, 16.0, dropout=0.05), 294),
        (LoraSpec(8, 16.0, markup_ids=(5, 6, 7, 8)), 237),
    ],
)
def test_memory_of_a_step_with_lora(lora: LoraSpec | None, measured: int) -> None:
    """MB beyond the weights that processes were measured to need on a CPU (docs/lab-notebook.md)."""
    config = ModelConfig(n_layer=12, n_embd=512, block_size=128, vocab_size=8192)
    told = training_memory(config, "adamw", 2, 4, "cpu", True, lora=lora) - 4 * size_of(config, lora=lora).parameters
    assert told / 1e6 == pytest.approx(measured, rel=0.2)
