"""Passes are as large as fits; a plan that cannot be measured says why."""

from __future__ import annotations

import pytest
import torch

from acorn.checkpoint.training_state import Counters
from acorn.config import Config, ModelConfig, TrainConfig
from acorn.errors import ResourceError
from acorn.runtime.device import Runtime, choose_runtime
from acorn.train import budget

CONFIG = Config(model=ModelConfig(n_layer=1, n_embd=16, n_head=2, vocab_size=20), train=TrainConfig(device="cpu"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:131] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_runs_out_while_steps_are_measured(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def measured(*_: object) -> float:
        raise error

    monkeypatch.setattr(budget, "seconds_per_step", measured)
    with pytest.raises(ResourceError, match="Memory ran out while a step of one or two layers was measured"):
        budget.plan_run(CONFIG)


def test_any_other_failure_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> float:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(budget, "seconds_per_step", measured)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        budget.plan_run(CONFIG)


@pytest.mark.parametrize(("dropout", "architecture"), [(0.0, "modern"), (0.1, "gpt2")])
def test_attention_with_products_in_fp16_keeps_no_weights(dropout: float, architecture: str) -> None:
    """Instead of T of them for each token, head and layer it takes some room for every thread; with dropout both."""
    sizes = {"n_layer": 3, "n_embd": 64, "n_head": 4, "vocab_size": 20, "block_size": 200}
    config = Config(model=ModelConfig(**sizes, architecture=architecture, dropout=dropout))
    runtimes = [Runtime("cpu", "fp16" if own else "fp32", False, 2, True, fp16_products=own) for own in (False, True)]
    with_weights, without = (budget.step_memory(config, runtime, 5) for runtime in runtimes)
    room = budget.attention_room(200, 16, 2)
    assert 2 * 2.5e6 < room < 2 * 4e6
    assert with_weights - without == (0 if dropout else 3 * 4 * 200 * 200 * 4 * 5) - room


def test_a_pass_is_the_largest_divisor_of_the_batch_that_fits() -> None:
    model = ModelConfig(n_layer=2, n_embd=64, vocab_size=1000)
    config = Config(model=model, train=TrainConfig(device="cpu", precision="fp32", batch_size=12))
    runtime = choose_runtime(config.train)
    needs = {n: budget.step_memory(config, runtime, n) for n in (1, 2, 3, 4, 6, 12)}
    assert sorted(needs.values()) == list(needs.values())
    assert budget.micro_batch_size_of(config, runtime, None) == 12
    assert budget.micro_batch_size_of(config, runtime, int(needs[6] / budget.SAFE_SHARE) + 1) == 6
    assert budget.micro_batch_size_of(config, runtime, 1) == 1


@pytest.mark.parametrize(("asked", "given"), [(5, 5), (13, 12)])
def test_a_pass_as_asked_for_is_never_more_than_the_batch(asked: int, given: int) -> None:
    config = Config(train=TrainConfig(device="cpu", precision="fp32", batch_size=12, micro_batch_size=asked))
    assert budget.micro_batch_size_of(config, choose_runtime(config.train), 1) == given


@pytest.mark.parametrize(
    ("step", "said"),
    [(0, "Out of memory in the first step."), (7, "Out of memory after step 7; the last checkpoint stands.")],
)
def test_memory_that_runs_out_in_a_step(step: int, said: str) -> None:
    config = Config(train=TrainConfig(device="cpu", micro_batch_size=12))
    with pytest.raises(ResourceError) as caught, budget.memory_errors(config, Counters(step=step)):
        raise MemoryError
    assert caught.value.what == said
    assert "train.micro_batch_size=6" in str(caught.value.mend)
