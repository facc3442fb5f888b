"""Compiled blocks equal eager ones, share one compilation, and are not recompiled for other shapes."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from acorn.config import ModelConfig, TrainConfig
from acorn.kernels import cpu
from acorn.kernels.build import Unavailable
from acorn.kernels.choose import training_ops
from acorn.model.gpt import GPT
from acorn.run.resolve import choose_runtime
from acorn.train.parallel import compile_model, uncompiled

HAS_COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
CONFIG = ModelConfig(n_layer=3, n_embd=32, n_head=2, block_size=16, vocab_size=50)


def loss_and_gradients(model: GPT, ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    loss, count = model(ids[:, :-1], ids[:, 1:])
    return loss / count, list(torch.autograd.grad(loss / count, list(model.parameters())))


@pytest.mark.skipif(not HAS_COMPILER, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_blocks_share_one_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is compiled too if it is not in C."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(cpu, "c_library", lambda name: Unavailable("no C compiler was found"))
    runtime = choose_runtime(TrainConfig(compile=True, device="cpu", precision="fp32"))
    model, eager = (
        GPT(CONFIG, training_ops(dataclasses.replace(runtime, compile=compiled), in_place_gradients=False))
        for compiled in (True, False)
    )
    model.init_weights(0)
    eager.init_weights(0)
    ids = torch.randint(50, (2, 17), generator=torch.Generator().manual_seed(0))
    eager_loss, eager_gradients = loss_and_gradients(eager, ids)
    counters.clear()
    compile_model(model)
    loss, gradients = loss_and_gradients(model, ids)
    torch.testing.assert_close(loss, eager_loss)
    for ours, theirs in zip(gradients, eager_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs == 2  # a block, and the loss
    with uncompiled(runtime), torch.no_grad():
        torch.testing.assert_close(model(ids[:1, :-3]), eager(ids[:1, :-3]))
    assert counters["stats"]["unique_graphs"] == graphs
    assert set(dict(model.named_parameters())) == set(dict(GPT(CONFIG).named_parameters()))
