"""Forward and backward of a micro-batch: compiled if the runtime says so, captured as a CUDA graph on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from acorn.model.gpt import GPT
from acorn.runtime.cuda_graph import CapturedFunction
from acorn.runtime.device import Runtime
from acorn.train.parallel import compile_model
from acorn.train.training_data import MicroBatch


class LossFunction(Protocol):
    """(ids, targets) -> (loss sum, count of targets); `GPT` is one. For `rows`, see `GPT.forward`."""

    def __call__(self, ids: Tensor, targets: Tensor, *, rows: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


ForwardBackward = Callable[[MicroBatch, float], Tensor]
"""(micro-batch, factor) -> loss sum. Accumulates the gradients of loss sum * factor in the parameters."""


def training_forward_backward(model: GPT, runtime: Runtime) -> ForwardBackward:
    """Forward and backward for training `model`. With runtime.compile, its blocks are compiled in place."""
    if runtime.compile:
        compile_model(model)
    return uncompiled_forward_backward(model, runtime)


def uncompiled_forward_backward(model: GPT, runtime: Runtime) -> ForwardBackward:
    """Forward and backward of a model without compiling it."""
    return (
        CapturedForwardBackward(model, runtime) if runtime.device == "cuda" else eager_forward_backward(model, runtime)
    )


def eager_forward_backward(loss_function: LossFunction, runtime: Runtime) -> ForwardBackward:
    """Forward and backward in PyTorch's eager mode."""

    def run(micro_batch: MicroBatch, factor: float) -> Tensor:
        ids, targets = (x.to(runtime.device, non_blocking=True) for x in micro_batch[:2])
        # On a GPU the head computes all rows: the targets say which are counted, and a gather of another size each
        # time could not be captured.
        rows = micro_batch[2] if runtime.device == "cpu" else None
        return _loss_and_gradients(loss_function, runtime, ids, targets, factor, rows)

    return run


MAX_CAPTURED_SHAPES, CAPTURED_FROM = 16, 3
"""Shapes of which forward and backward are captured at most, and the call from which on a further shape is: a capture
takes as long as several calls, so a rare shape is not worth it."""


class CapturedForwardBackward:
    """Forward and backward as a CUDA graph for each shape of token ids.

    Captured are the first shape and others with as many tokens, as a run has them that moves to a longer context, and
    further shapes that come again and again, as examples of several lengths do. Other shapes run eagerly. The gradients
    keep their memory, because the captured graphs add to these addresses.
    """

    def __init__(self, model: GPT, runtime: Runtime) -> None:
        self._model, self._runtime = model, runtime
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._gradients: list[Tensor] = []
        self._captured: dict[torch.Size, CapturedFunction] = {}
        self._calls: Counter[torch.Size] = Counter()
        self._tokens = 0

    def __call__(self, micro_batch: MicroBatch, factor: float) -> Tensor:
        ids, targets, _ = micro_batch
        inputs = ids, targets, torch.tensor(factor)
        self._tokens = self._tokens or ids.numel()
        self._calls[ids.shape] += 1
        self._attach_gradients()
        if ids.shape not in self._captured and self._is_worth_capturing(ids):
            self._capture(*(x.to(self._runtime.device) for x in inputs))
        if ids.shape not in self._captured:
            return eager_forward_backward(self._model, self._runtime)(micro_batch, factor)
        return self._captured[ids.shape](*inputs)

    def _is_worth_capturing(self, ids: Tensor) -> bool:
        recurs = self._calls[ids.shape] >= CAPTURED_FROM or ids.numel() == self._tokens
        return recurs and len(self._captured) < MAX_CAPTURED_SHAPES

    def _attach_gradients(self) -> None:
        """Gives the parameters the gradients that captured graphs add to, with what has accumulated so far."""
        self._gradients = self._gradients or [torch.zeros_like(parameter) for parameter in self._trained]
        pairs = list(zip(self._trained, self._gradients, strict=True))
        if missing := [ours for parameter, ours in pairs if parameter.grad is None]:
            torch._foreach_zero_(missing)
        for parameter, ours in pairs:
            if parameter.grad is not None and parameter.grad is not ours:
                ours.copy_(parameter.grad)
            parameter.grad = ours

    def _capture(self, *inputs: Tensor) -> None:
        """Captures forward and backward for inputs of these shapes. The gradients are as before afterwards."""
        accumulated = [gradient.clone() for gradient in self._gradients]

        def run(ids: Tensor, targets: Tensor, factor: Tensor) -> Tensor:
            return _loss_and_gradients(self._model, self._runtime, ids, targets, factor)

        other = next(iter(self._captured.values()), None)
        self._captured[inputs[0].shape] = CapturedFunction(run, *inputs, shares_memory_with=other)
        torch._foreach_copy_(self._gradients, accumulated)


def _loss_and_gradients(
    loss_function: LossFunction,
    runtime: Runtime,
    ids: Tensor,
    targets: Tensor,
    factor: float | Tensor,
    rows: Tensor | None = None,
) -> Tensor:
    with runtime.autocast():
        loss, _ = loss_function(ids, targets) if rows is None else loss_function(ids, targets, rows=rows)
    (loss * factor).backward()
    return loss.detach()
