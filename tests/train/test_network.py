"""The network of a run and its optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cpus import needs_fp16

from acorn.config import Config, ModelConfig, OptimizerConfig
from acorn.kernels.choose import training_ops
from acorn.model.gpt import GPT
from acorn.model.loss import Workspace
from acorn.runtime.device import Runtime
from acorn.train.network import build_network
from acorn.train.optimizer import AdamW, Muon

SIZES = {"vocab_size": 50, "n_layer": 1, "n_embd": 16, "n_head": 2, "block_size": 8}


def config_of(**shape: Any) -> Config:
    return Config(model=ModelConfig(**SIZES | shape), optimizer=OptimizerConfig(name="muon"))


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_initial_weights_do_not_depend_on_the_operations(architecture: str, precision: Any) -> None:
    config = config_of(architecture=architecture)
    model, _ = build_network(config, Runtime("cpu", precision, False, 2, True))
    plain = GPT(config.model)
    assert {name: p.shape for name, p in model.state_dict().items()} == {
        name: p.shape for name, p in plain.state_dict().items()
    }
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    model.init_weights(1)
    plain.init_weights(1)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    plain.load_state_dict(model.state_dict())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_muon_iterates_in_bf16_unless_the_run_is_in_fp32(precision: Any, dtype: torch.dtype) -> None:
    _, optimizers = build_network(config_of(), Runtime("cpu", precision, False, 2, True))
    assert [type(optimizer) for optimizer in optimizers] == [AdamW, Muon]
    assert optimizers[1].dtype == dtype


@needs_fp16
def test_muon_uses_the_matmul_of_the_network() -> None:
    _, optimizers = build_network(config_of(), Runtime("cpu", "fp16", False, 2, True, fp16_matmuls=True))
    assert optimizers[1]._matmul is not None
    assert optimizers[1].dtype == torch.float32


def test_networks_can_share_a_workspace() -> None:
    workspace, runtime = Workspace(), Runtime("cpu", "fp32", False, 2, True)
    models = [build_network(config_of(n_layer=n), runtime, workspace)[0] for n in (1, 2)]
    places = set()
    for model in models:
        model.init_weights(0)
        model(torch.zeros(2, 8, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long))
        places.add(workspace.newest.data_ptr())
    assert len(places) == 1
    assert build_network(config_of(), runtime)[0].head.workspace is not workspace


def test_in_place_gradients() -> None:
    """With autograd, the embedding's gradient is a new tensor each time; here its memory is reused."""
    runtime, ids = Runtime("cpu", "fp32", False, 2, True), torch.zeros(2, 8, dtype=torch.long)
    config = config_of(architecture="gpt2", tied=False)
    chosen, _ = build_network(config, runtime)
    other = GPT(config.model, training_ops(runtime, in_place_gradients=False))
    seen = []
    for model in (chosen, other):
        model.init_weights(0)
        model.token_embedding.weight.register_hook(lambda grad: seen.append(grad is None))
        model(ids, ids)[0].backward()
    assert seen == [True, False]  # autograd computed that of the other network only
    for one, two in zip(chosen.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
