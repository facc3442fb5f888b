"""Forward and backward accumulate gradients; captured ones are bit-identical to eager ones."""

from __future__ import annotations

import pytest
import torch

from acorn.config import ModelConfig, OptimizerConfig
from acorn.model.gpt import GPT
from acorn.model.lora import LoraSpec
from acorn.model.loss import IGNORE
from acorn.runtime.device import Runtime
from acorn.train import forward_backward
from acorn.train.forward_backward import (
    MAX_CAPTURED_SHAPES,
    CapturedForwardBackward,
    ForwardBackward,
    eager_forward_backward,
)
from acorn.train.optimizer import build_optimizers, set_rates
from acorn.train.step import initial_counters, train_step
from acorn.train.training_data import Batch

SHAPE = {"n_layer": 2, "n_embd": 64, "n_head": 2, "block_size": 32, "vocab_size": 100}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batch(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, None]:
    windows = torch.randint(100, (n, 33), generator=torch.Generator().manual_seed(seed))
    targets = windows[:, 1:].clone()
    targets[0, :5] = IGNORE
    return windows[:, :-1], targets, None


def fresh(device: str = "cpu", **shape) -> GPT:
    model = GPT(ModelConfig(**SHAPE, **shape)).to(device)
    model.init_weights(0)
    return model


def gradients(model: GPT) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def test_gradients_accumulate_to_that_of_the_sum() -> None:
    model, other = fresh(), fresh()
    run = eager_forward_backward(model, Runtime("cpu", "fp32", False, 1, True))
    total = run(batch(2), 0.5) + run(batch(3, seed=1), 0.5)
    expected = other(*batch(2)[:2])[0] + other(*batch(3, seed=1)[:2])[0]
    (0.5 * expected).backward()
    assert not total.requires_grad
    torch.testing.assert_close(total, expected.detach())
    for one, two in zip(gradients(model), gradients(other), strict=True):
        torch.testing.assert_close(one, two)


def train(model: GPT, forward_backward: ForwardBackward, runtime: Runtime, optimizer: str) -> list[float]:
    """Losses of four steps of three micro-batches, the last of them smaller."""
    optimizers = build_optimizers(model, OptimizerConfig(name=optimizer), muon_dtype=torch.bfloat16)
    set_rates(optimizers, 1.0)
    counters = initial_counters(4, runtime.precision)
    losses = []
    for step in range(4):
        ids, targets, _ = batch(10, seed=step)
        slices = zip(ids.split(4), targets.split(4), strict=True)
        work = Batch([(*some, None) for some in slices], ids.numel(), int((targets != IGNORE).sum()), ids.size(1))
        options = {"clip": 1.0, "seed": 0, "counters": counters, "runtime": runtime}
        losses.append(train_step(model, forward_backward, optimizers, work, **options).loss)
        counters.step += 1
    return losses


@NEEDS_GPU
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("shape", [{}, {"architecture": "gpt2", "dropout": 0.1}])
def test_captured_training_is_bit_identical_to_eager_training(shape, optimizer: str) -> None:
    """With new dropout in every forward, and micro-batches of another size in between."""
    runtime = Runtime("cuda", "bf16", False, 1, True)
    with runtime.start():
        model, other = fresh("cuda", **shape), fresh("cuda", **shape)
        losses = train(model, CapturedForwardBackward(model, runtime), runtime, optimizer)
        assert losses == train(other, eager_forward_backward(other, runtime), runtime, optimizer)
    assert len(set(losses)) == 4
    assert all(map(torch.equal, model.parameters(), other.parameters()))


class Replayed:
    """Replaces CapturedFunction: calls the function, and records the captured shapes."""

    made: list[torch.Size]

    def __init__(self, function, *inputs: torch.Tensor, shares_memory_with: Replayed | None = None) -> None:
        assert (shares_memory_with is None) == (not self.made)
        self.made.append(inputs[0].shape)
        self._function = function
        for _ in range(4):  # like warm-up and capture, which change the gradients
            function(*inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self._function(*inputs)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The captured shapes."""
    Replayed.made = []
    monkeypatch.setattr(forward_backward, "CapturedFunction", Replayed)
    return Replayed.made


def test_a_longer_context_is_captured_again_and_adds_to_the_same_gradients(replayed: list[torch.Size]) -> None:
    """A smaller last micro-batch is captured when it has come three times."""
    runtime = Runtime("cpu", "fp32", False, 1, True)
    model, other = fresh(), fresh()
    captured, eager = CapturedForwardBackward(model, runtime), eager_forward_backward(other, runtime)
    ids, targets, _ = batch(4)
    places = set()
    for shape in ((8, 16), (8, 16), (4, 32), (8, 16)):  # two micro-batches and a smaller one each
        for network, run in ((model, captured), (other, eager)):
            for part in (slice(None), slice(None), slice(0, 2)):
                run((ids.reshape(shape)[part], targets.reshape(shape)[part], None), 0.5)
            if network is model:
                places.add(gradients(network)[0].data_ptr())
        assert all(map(torch.equal, gradients(model), gradients(other)))
        for network in (model, other):
            network.zero_grad(set_to_none=True)
    assert replayed == [(8, 16), (4, 32), (2, 16)]
    assert len(places) == 1


@pytest.mark.parametrize("lora", [None, LoraSpec(2, 4.0, markup_ids=(3, 7))], ids=["all", "LoRA"])
def test_several_shapes_in_one_step_lose_no_gradients(replayed: list[torch.Size], lora: LoraSpec | None) -> None:
    """A shape that is captured in the middle of a step leaves what has accumulated as it is, wherever the optimizer has
    put it; and frozen parameters get no gradient."""
    runtime = Runtime("cpu", "fp32", False, 1, True)
    models = [GPT(ModelConfig(**SHAPE), lora=lora) for _ in range(2)]
    for network in models:
        network.init_weights(0)
        network.init_weights(1, [name for name, _ in network.named_parameters() if name.endswith("lora_a")])
    model, other = models
    captured, eager = CapturedForwardBackward(model, runtime), eager_forward_backward(other, runtime)
    optimizers = [
        build_optimizers(network, OptimizerConfig(name="adamw"), muon_dtype=torch.float32) for network in models
    ]
    for step in range(5):
        shapes = [(4, 8), (2, 16), (3, 8), (4, 8), (1, 24)][: 1 + 4 * (step != 2)]  # one step of a single micro-batch
        for run, (optimizer,) in zip((captured, eager), optimizers, strict=True):
            optimizer.zero_grad(keep=len(shapes) > 1)
            for number, (rows, length) in enumerate(shapes):
                ids, targets, _ = batch(4, seed=10 * step + number)
                run((ids[:rows, :length], targets[:rows, :length], None), 0.5)
        for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
            assert (ours.grad is None) == (theirs.grad is None) == (not ours.requires_grad), name
            assert ours.grad is None or torch.equal(ours.grad, theirs.grad), name
        for optimizer, network in zip(optimizers, models, strict=True):
            set_rates(optimizer, 1.0)
            optimizer[0].step()
            if len(shapes) == 1:
                optimizer[0].zero_grad()
            assert all(not parameter.isnan().any() for parameter in network.parameters())
    assert replayed == [(4, 8), (2, 16), (3, 8), (1, 24)]


def test_only_so_many_shapes_are_captured(replayed: list[torch.Size]) -> None:
    runtime, model = Runtime("cpu", "fp32", False, 1, True), fresh()
    captured = CapturedForwardBackward(model, runtime)
    ids, targets, _ = batch(1)
    for _ in range(4):
        for length in range(1, MAX_CAPTURED_SHAPES + 5):
            captured((ids[:, :length], targets[:, :length], None), 0.5)
    assert replayed == [(1, length) for length in range(1, MAX_CAPTURED_SHAPES + 1)]
