"""A pass adds the gradients of the loss to those that are there; recorded ones do it bit for bit as eager ones."""

from __future__ import annotations

import pytest
import torch

from acorn.config import ModelConfig, OptimizerConfig
from acorn.model.gpt import GPT
from acorn.model.loss import IGNORE
from acorn.runtime.device import Runtime
from acorn.train.optimizer import build_optimizers, set_rates
from acorn.train.passes import Pass, RecordedPass, eager_pass
from acorn.train.step import initial_counters, train_step

SHAPE = {"n_layer": 2, "n_embd": 64, "n_head": 2, "block_size": 32, "vocab_size": 100}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batch(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    windows = torch.randint(100, (n, 33), generator=torch.Generator().manual_seed(seed))
    targets = windows[:, 1:].clone()
    targets[0, :5] = IGNORE
    return windows[:, :-1], targets


def fresh(device: str = "cpu", **shape) -> GPT:
    model = GPT(ModelConfig(**SHAPE, **shape)).to(device)
    model.init_weights(0)
    return model


def gradients(model: GPT) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def test_passes_add_up_to_the_gradient_of_their_sum() -> None:
    model, other = fresh(), fresh()
    run_pass = eager_pass(model, Runtime("cpu", "fp32", False, 1, True))
    total = run_pass(*batch(2), 0.5) + run_pass(*batch(3, seed=1), 0.5)
    expected = other(*batch(2))[0] + other(*batch(3, seed=1))[0]
    (0.5 * expected).backward()
    assert not total.requires_grad
    torch.testing.assert_close(total, expected.detach())
    for one, two in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(one, two)


def train(model: GPT, run_pass: Pass, runtime: Runtime, optimizer: str) -> list[float]:
    """Losses of four steps of three micro-batches, the last of them smaller."""
    optimizers = build_optimizers(model, OptimizerConfig(name=optimizer), muon_dtype=torch.bfloat16)
    set_rates(optimizers, 1.0)
    counters = initial_counters(4, runtime.precision)
    losses = []
    for step in range(4):
        options = {"micro_batch_size": 4, "clip": 1.0, "seed": 0, "counters": counters, "runtime": runtime}
        losses.append(train_step(model, run_pass, optimizers, *batch(10, seed=step), **options).loss)
        counters.step += 1
    return losses


@NEEDS_GPU
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("shape", [{}, {"architecture": "gpt2", "dropout": 0.1}])
def test_recorded_training_is_eager_training_to_the_bit(shape, optimizer: str) -> None:
    """Dropout draws anew in every pass; a pass of another size comes in between."""
    runtime = Runtime("cuda", "bf16", False, 1, True)
    with runtime.start():
        model, other = fresh("cuda", **shape), fresh("cuda", **shape)
        losses = train(model, RecordedPass(model, runtime), runtime, optimizer)
        assert losses == train(other, eager_pass(other, runtime), runtime, optimizer)
    assert len(set(losses)) == 4
    assert all(map(torch.equal, model.parameters(), other.parameters()))
