"""The forward and backward pass of a micro-batch: compiled where the runtime says so, recorded on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from acorn.model.gpt import GPT
from acorn.runtime.cuda_graph import Recorded
from acorn.runtime.device import Runtime
from acorn.train.parallel import compile_model

LossFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(ids, targets) -> (loss sum, count of targets), as `GPT.forward`."""

Pass = Callable[[Tensor, Tensor, float], Tensor]
"""(ids, targets, factor) -> loss sum. Adds the gradients of loss sum * factor to those that parameters have."""


def training_pass(model: GPT, runtime: Runtime) -> Pass:
    """The pass for training `model`. Where runtime.compile is on, its blocks are compiled in place."""
    if runtime.compile:
        compile_model(model)
    return uncompiled_pass(model, runtime)


def uncompiled_pass(model: GPT, runtime: Runtime) -> Pass:
    """The pass of a model as it is."""
    return RecordedPass(model, runtime) if runtime.device == "cuda" else eager_pass(model, runtime)


def eager_pass(loss_function: LossFunction, runtime: Runtime) -> Pass:
    """Operation after operation, as PyTorch does by itself."""

    def run(ids: Tensor, targets: Tensor, factor: float) -> Tensor:
        ids, targets = (x.to(runtime.device, non_blocking=True) for x in (ids, targets))
        return _forward_and_backward(loss_function, runtime, ids, targets, factor)

    return run


class RecordedPass:
    """A pass as a CUDA graph, recorded for the first shape that comes; other shapes run eagerly.

    Gradients stay in memory of their own: it is to these places that the recorded pass adds.
    """

    def __init__(self, model: GPT, runtime: Runtime) -> None:
        self._model, self._runtime = model, runtime
        self._gradients: list[Tensor] = []
        self._recorded: Recorded | None = None

    def __call__(self, ids: Tensor, targets: Tensor, factor: float) -> Tensor:
        inputs = ids, targets, torch.tensor(factor)
        if self._recorded is None:
            self._record(*(x.to(self._runtime.device) for x in inputs))
        elif any(parameter.grad is None for parameter in self._model.parameters()):
            self._begin_at_zero()
        if self._recorded is None or not self._recorded.fits(*inputs):
            return eager_pass(self._model, self._runtime)(ids, targets, factor)
        return self._recorded(*inputs)

    def _record(self, *inputs: Tensor) -> None:
        self._gradients = [torch.zeros_like(parameter) for parameter in self._model.parameters()]
        self._begin_at_zero()

        def run(ids: Tensor, targets: Tensor, factor: Tensor) -> Tensor:
            return _forward_and_backward(self._model, self._runtime, ids, targets, factor)

        self._recorded = Recorded(run, *inputs)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        torch._foreach_zero_(self._gradients)
        for parameter, gradient in zip(self._model.parameters(), self._gradients, strict=True):
            parameter.grad = gradient


def _forward_and_backward(
    loss_function: LossFunction, runtime: Runtime, ids: Tensor, targets: Tensor, factor: float | Tensor
) -> Tensor:
    with runtime.autocast():
        loss, _ = loss_function(ids, targets)
    (loss * factor).backward()
    return loss.detach()
