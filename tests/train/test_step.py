"""One step: the update does not depend on the micro-batch size, and is skipped if a value is not finite."""

from __future__ import annotations

import math

import pytest
import torch

from acorn.checkpoint.training_state import Counters
from acorn.config import ModelConfig, OptimizerConfig
from acorn.model.gpt import GPT
from acorn.model.lora import LoraSpec
from acorn.model.loss import IGNORE
from acorn.runtime.device import Runtime
from acorn.train.forward_backward import eager_forward_backward
from acorn.train.optimizer import AdamW, build_optimizers, set_rates
from acorn.train.step import GROWTH_INTERVAL, StepResult, train_step
from acorn.train.training_data import Batch

RUNTIME = Runtime("cpu", "fp32", False, 1, True)
SHAPE = ModelConfig(n_layer=2, n_embd=32, n_head=2, block_size=16, vocab_size=40)


def grouped(inputs: torch.Tensor, targets: torch.Tensor, size: int) -> Batch:
    """A batch in micro-batches of `size` sequences, the last of which may be smaller."""
    slices = zip(inputs.split(size), targets.split(size), strict=True)
    count = int((targets != IGNORE).sum())
    return Batch([(ids, wanted, None) for ids, wanted in slices], inputs.numel(), count, inputs.size(1))


def take_step(
    shape: ModelConfig = SHAPE,
    micro_batch_size: int = 6,
    runtime: Runtime = RUNTIME,
    counters: Counters | None = None,
    clip: float = 0.0,
    damage=None,
    ignored: int = 0,
    lora: LoraSpec | None = None,
) -> tuple[StepResult, GPT]:
    model = GPT(shape, lora=lora)
    model.init_weights(0)
    if damage:
        damage(model)
    optimizers = build_optimizers(model, OptimizerConfig(), muon_dtype=torch.float32)
    windows = torch.randint(0, 40, (6, 17), generator=torch.Generator().manual_seed(1))
    targets = windows[:, 1:].clone()
    targets[:2, :ignored] = IGNORE
    result = train_step(
        model,
        eager_forward_backward(model, runtime),
        optimizers,
        grouped(windows[:, :-1], targets, micro_batch_size),
        clip=clip,
        seed=0,
        counters=counters or Counters(),
        runtime=runtime,
    )
    return result, model


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_give_the_update_of_the_whole_batch(micro_batch_size: int) -> None:
    """Also if they have unequal sizes and some targets are ignored."""
    whole, model = take_step(ignored=9)
    parts, other = take_step(micro_batch_size=micro_batch_size, ignored=9)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        # AdamW's first update is lr * sign(gradient), unless the gradient is tiny.
        assert ((one - two).abs() > 1e-4).float().mean() < 0.01


def test_gradients_keep_their_memory_with_several_micro_batches() -> None:
    """The next step begins with zeros; gradients of a single micro-batch are freed."""
    model = GPT(SHAPE)
    model.init_weights(0)
    (optimizer,) = build_optimizers(model, OptimizerConfig(name="adamw"), muon_dtype=torch.float32)
    windows = torch.randint(0, 40, (6, 17), generator=torch.Generator().manual_seed(1))
    more = {"clip": 0.0, "seed": 0, "counters": Counters(), "runtime": RUNTIME}
    forward_backward, places, norms = eager_forward_backward(model, RUNTIME), [], []
    set_rates([optimizer], 0.0)
    for micro_batch_size in (4, 3, 6, 4):
        result = train_step(
            model,
            forward_backward,
            [optimizer],
            grouped(windows[:, :-1], windows[:, 1:], micro_batch_size),
            **more,
        )
        places.append([None if p.grad is None else p.grad.data_ptr() for p in model.parameters()])
        norms.append(result.grad_norm)
    assert norms == pytest.approx([norms[0]] * 4, rel=1e-5)
    assert places[0] == places[1]
    assert places[2] == [None] * len(places[0])


def test_initial_loss_is_that_of_a_uniform_guess() -> None:
    result, _ = take_step()
    assert result.loss == pytest.approx(math.log(40), abs=0.1)
    assert result.updated
    assert not result.diverged


def test_clipping_limits_the_update() -> None:
    """SGD-like check: with clip c the gradients that reach the optimizer have norm c."""
    seen = {}
    original = AdamW.step

    def spy(self, *arguments, **options):
        seen["norm"] = torch.nn.utils.get_total_norm([p.grad for g in self.param_groups for p in g["params"]]).item()
        return original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdamW, "step", spy)
        result, _ = take_step(clip=0.01)
    assert result.grad_norm > 0.01
    assert seen["norm"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_value_changes_nothing(value: float) -> None:
    """Fault 27."""

    def damage(model: GPT) -> None:
        with torch.no_grad():
            model.blocks[0].mlp.up_proj.weight[0, 0] = value

    def untouched() -> GPT:
        model = GPT(SHAPE)
        model.init_weights(0)
        damage(model)
        return model

    result, model = take_step(damage=damage)
    assert not result.updated
    assert result.diverged
    for (name, after), before in zip(model.named_parameters(), untouched().parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True, msg=name)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("of", ["network", "LoRA"])
def test_dropout_is_a_function_of_seed_and_step(of: str) -> None:
    """It does not depend on random numbers drawn before. LoRA may be all that drops anything."""
    shape = SHAPE.model_copy(update={"architecture": "gpt2", "dropout": 0.3 if of == "network" else 0.0})
    lora = LoraSpec(2, 2.0, dropout=0.3) if of == "LoRA" else None

    def damage(model: GPT) -> None:  # else LoRA's first losses are those of the base model
        if lora:
            for block in model.blocks:
                torch.nn.init.constant_(block.mlp.up_proj.lora_b, 0.5)

    losses = {}
    for step, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        result, _ = take_step(shape, counters=Counters(step=step), damage=damage, lora=lora)
        losses[step, noise] = result.loss
    assert losses[0, 1] == losses[0, 2]
    assert losses[0, 1] != losses[1, 1]


def test_a_step_with_lora_changes_only_what_is_new() -> None:
    """The base model stays bit-identical, and has no gradients."""
    shape, lora = SHAPE.model_copy(update={"architecture": "gpt2"}), LoraSpec(2, 2.0, markup_ids=(5, 9))
    fresh = GPT(shape, lora=lora)
    fresh.init_weights(0)
    result, model = take_step(shape, lora=lora, micro_batch_size=2)
    assert result.updated
    assert math.isfinite(result.grad_norm)
    for (name, after), before in zip(model.named_parameters(), fresh.parameters(), strict=True):
        if name not in model.new_parameters():
            assert torch.equal(after, before), name
            assert after.grad is None
        elif not name.endswith("lora_a"):  # the gradient of A is zero while B is
            assert not torch.equal(after, before), name


def test_fp16_overflow_halves_the_scale_and_does_not_count_as_divergence() -> None:
    """Fault 27: overflows count only when the scale is at its minimum."""
    runtime = Runtime("cpu", "fp16", False, 1, True)
    counters = Counters(loss_scale=2.0**60)
    result, _ = take_step(runtime=runtime, counters=counters)
    assert not result.updated
    assert not result.diverged
    assert counters.loss_scale == 2.0**59
    counters = Counters(loss_scale=1024.0, good_steps=GROWTH_INTERVAL - 1)
    result, _ = take_step(runtime=runtime, counters=counters)
    assert result.updated
    assert counters.loss_scale == 2048.0
    exact, _ = take_step()
    assert result.loss == pytest.approx(exact.loss, abs=0.01)
    assert result.grad_norm == pytest.approx(exact.grad_norm, rel=0.02)


@pytest.mark.fault(27)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_non_finite_gradient_changes_nothing(value: float) -> None:
    """Fault 27: one element of one gradient; weights and optimizer state stay bit-identical."""
    model = GPT(SHAPE)
    model.init_weights(0)
    optimizers = build_optimizers(model, OptimizerConfig(name="muon"), muon_dtype=torch.float32)
    windows = torch.randint(0, 40, (6, 17), generator=torch.Generator().manual_seed(1))

    def step() -> StepResult:
        options = {"clip": 1.0, "seed": 0, "counters": Counters(), "runtime": RUNTIME}
        batch = grouped(windows[:, :-1], windows[:, 1:], 2)
        return train_step(model, eager_forward_backward(model, RUNTIME), optimizers, batch, **options)

    def everything() -> list[torch.Tensor]:
        states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
        return [tensor.detach().clone() for tensor in [*model.parameters(), *states]]

    assert step().updated
    for parameter in model.parameters():
        before = everything()

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            spoiled = gradient.clone()
            spoiled.view(-1)[-1] = value
            return spoiled

        handle = parameter.register_hook(spoil)
        result = step()
        handle.remove()
        assert (result.updated, result.diverged) == (False, True)
        assert all(map(torch.equal, before, everything()))
    assert step().updated


@pytest.mark.fault(27)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_changes_nothing(value: float) -> None:
    """Fault 27: the loss of one micro-batch, with gradients that are finite."""
    model = GPT(SHAPE)
    model.init_weights(0)
    optimizers = build_optimizers(model, OptimizerConfig(), muon_dtype=torch.float32)
    windows = torch.randint(0, 40, (6, 17), generator=torch.Generator().manual_seed(1))
    calls = []

    def spoiled(ids: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, count = model(ids, wanted)
        calls.append(1)
        return (loss + value if len(calls) == 2 else loss), count

    options = {"clip": 1.0, "seed": 0, "counters": Counters(), "runtime": RUNTIME}
    batch = grouped(windows[:, :-1], windows[:, 1:], 2)
    result = train_step(model, eager_forward_backward(spoiled, RUNTIME), optimizers, batch, **options)
    fresh = GPT(SHAPE)
    fresh.init_weights(0)
    assert (result.updated, result.diverged) == (False, True)
    assert all(map(torch.equal, model.parameters(), fresh.parameters()))


def test_a_step_synchronizes_with_the_device_once(monkeypatch) -> None:
    """Loss and norm are read together, and serve the logs too; no other value is read."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Waits(TorchDispatchMode):
        """Counts reads of values from tensors, which synchronize with the device."""

        count = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                Waits.count += 1
            return function(*arguments, **(options or {}))

    tolist = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> list:
        Waits.count += 1
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    counts = {}
    for micro_batch_size in (6, 1):
        Waits.count = 0
        with Waits():
            take_step(micro_batch_size=micro_batch_size, clip=1.0)
        counts[micro_batch_size] = Waits.count
    assert counts == {6: 2, 1: 2}  # one is this file's, for the count of targets on the CPU
