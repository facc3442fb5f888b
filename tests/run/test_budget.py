"""A step takes as much memory as planned. Out of memory, the message says which setting to lower."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from cpus import needs_fp16
from torch import Tensor

from acorn.checkpoint.training_state import Counters
from acorn.config import Config, ModelConfig, OptimizerConfig, TrainConfig
from acorn.errors import ResourceError
from acorn.kernels.cpu import is_fused
from acorn.run import budget
from acorn.runtime.device import Runtime
from acorn.train.network import build_network


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_fp16_attention_does_not_store_attention_weights(dropout: float) -> None:
    """Only a workspace per thread is needed."""
    sizes = {"architecture": "original", "n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 20, "dropout": dropout}
    runtime = Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True)
    needed = []
    for block_size, sequences in ((100, 10), (200, 5)):
        config = Config(model=ModelConfig(**sizes, block_size=block_size), optimizer=OptimizerConfig(name="adamw"))
        workspace = budget.attention_workspace(block_size, 16, 2)
        assert 2 * 2.5e6 < workspace < 2 * 4e6
        positions = 16 * block_size * 64
        needed.append(budget.step_memory(config, runtime, sequences) - workspace - positions)
    assert needed[1] == needed[0]


def kept_by(config: Config, runtime: Runtime) -> int:
    """Bytes that PyTorch saves for the backward pass of 32 x 64 tokens, without weights."""
    model, _ = build_network(config, runtime)
    model.init_weights(0)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    ids = torch.zeros(32, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), runtime.autocast():
        loss = model(ids, ids)
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    del loss
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize(
    "shape", [{}, {"dropout": 0.1}, {"head_width": 128}, {"head_width": 128, "n_kv_head": 1, "n_inner": 128}]
)
def test_saved_activations_of_a_modern_layer_match_the_plan(shape: dict[str, Any]) -> None:
    check_a_layer(Runtime("cpu", "bf16", False, 2, True), architecture="modern", **shape)


@needs_fp16
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_saved_activations_of_a_layer_with_fp16_matmuls_match_the_plan(architecture: str, dropout: float) -> None:
    runtime = Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True)
    check_a_layer(runtime, architecture=architecture, dropout=dropout)


def test_fp16_matmuls_of_pytorch_are_not_fused() -> None:
    """The C code between matmuls takes fp32 and bf16 only."""
    assert not is_fused(Runtime("cpu", "fp16", False, 2, True))
    assert is_fused(Runtime("cpu", "fp16", True, 2, True))


@needs_fp16
def test_acorns_fp16_matmuls_are_fused_with_the_rest() -> None:
    assert is_fused(Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True))


def check_a_layer(runtime: Runtime, **shape: Any) -> None:
    sizes = {"n_embd": 128, "n_head": 2, "block_size": 64, "vocab_size": 97} | shape
    adamw = OptimizerConfig(name="adamw")
    one, two = (Config(model=ModelConfig(n_layer=n, **sizes), optimizer=adamw) for n in (1, 2))
    block = build_network(one, runtime)[0].blocks[0]
    in_bf16 = 2 * sum(p.numel() for p in block.parameters() if p.ndim == 2) * (runtime.precision == "bf16")
    of_weights = 16 * sum(p.numel() for p in block.parameters())  # with gradients and AdamW's state, all in fp32
    planned = budget.step_memory(two, runtime, 32) - budget.step_memory(one, runtime, 32) - of_weights
    assert kept_by(two, runtime) - kept_by(one, runtime) - in_bf16 == pytest.approx(planned, rel=0.1)


STEPS = """
from acorn.config import Config, ModelConfig, OptimizerConfig
from acorn.runtime.device import Runtime
from acorn.runtime.memory import resident_memory
from acorn.run.budget import LIBRARY_BYTES, step_memory
from acorn.model.loss import Workspace
from acorn.run.calibration import _Network

model = ModelConfig(n_layer=4, n_embd=256, block_size=256, vocab_size=8192)
config = Config(model=model, optimizer=OptimizerConfig(name="adamw"))
runtime = Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True)
before = resident_memory()
with runtime.start():
    network = _Network(config, runtime, 4, Workspace())
    for _ in range(30):
        network.step(1, 1)
    taken = resident_memory() - before  # no memory was returned to the system yet
print(taken / (LIBRARY_BYTES + step_memory(config, runtime, 1)))
"""


@needs_fp16
def test_memory_of_one_sequence_matches_the_plan() -> None:
    """It would be well above the plan if glibc did not reuse the packing buffers."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert 0.7 < float(done.stdout) < 1.05


@pytest.mark.parametrize(
    ("step", "said"),
    [(0, "Out of memory in the first step."), (7, "Out of memory after step 7; the last checkpoint is intact.")],
)
def test_out_of_memory_in_a_step_is_reported(step: int, said: str) -> None:
    config = Config(train=TrainConfig(device="cpu", micro_batch_size=12))
    with pytest.raises(ResourceError) as caught, budget.memory_errors(config, Counters(step=step)):
        raise MemoryError
    assert caught.value.what == said
    assert "train.micro_batch_size=6" in str(caught.value.fix)
