"""A plan that cannot be measured says why."""

from __future__ import annotations

import pytest
import torch

from acorn.config import Config, ModelConfig, TrainConfig
from acorn.errors import ResourceError
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
