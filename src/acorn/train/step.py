"""One optimizer step: forward and backward of the micro-batches, the check for finite values, the update."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch

from acorn.checkpoint.training_state import Counters
from acorn.model.gpt import GPT
from acorn.runtime.device import Runtime
from acorn.train.forward_backward import ForwardBackward
from acorn.train.optimizer import Optimizer
from acorn.train.training_data import Batch

INITIAL_LOSS_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""Steps without an overflow after which the loss scale of fp16 doubles."""

CLIP_EPS = 1e-6
"""What PyTorch adds to the norm before it scales gradients: below clip - CLIP_EPS, clipping changes nothing."""


def initial_counters(steps: int, precision: str) -> Counters:
    """The counters of a run that has not begun. `steps`: its length; 0 if the length is given in minutes."""
    return Counters(schedule_steps=steps, loss_scale=INITIAL_LOSS_SCALE if precision == "fp16" else 1.0)


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Attributes:
        loss: mean over the step's target tokens, in nats.
        grad_norm: global norm before clipping.
        updated: false if loss or gradient norm was not finite; then no parameter was changed.
        diverged: true if it was not finite for another reason than an fp16 overflow, which a smaller loss scale fixes.
    """

    loss: float
    grad_norm: float
    updated: bool
    diverged: bool


def train_step(
    model: GPT,
    forward_backward: ForwardBackward,
    optimizers: list[Optimizer],
    batch: Batch,
    *,
    clip: float,
    seed: int,
    counters: Counters,
    runtime: Runtime,
) -> StepResult:
    """Computes the gradients of a batch and updates the parameters, unless loss or gradient norm is not finite.

    Losses are summed and divided once by the count of all targets, so that neither the grouping into micro-batches nor
    ignored targets change the weight of a token. The step synchronizes with the device once, to read loss and gradient
    norm.

    Args:
        forward_backward: forward and backward of `model` for a micro-batch.
        clip: largest gradient norm; 0: no clipping.
        seed: the run's seed; the random numbers of dropout depend on it, the step and the micro-step.
        counters: step and loss scale; the loss scale is updated here.
    """
    model.train()
    scale = counters.loss_scale if runtime.dtype == torch.float16 else 1.0
    loss_sum = torch.zeros((), device=runtime.device)
    several = len(batch.micro_batches) > 1
    for optimizer in optimizers:  # so that a step begins in the same state after a step, a validation or a resume
        optimizer.zero_grad(keep=several)
    for micro_step, micro_batch in enumerate(batch.micro_batches):
        if model.draws_random_numbers:
            torch.manual_seed(_dropout_seed(seed, counters.step, micro_step, rank=0))
        loss_sum += forward_backward(micro_batch, scale / batch.count)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if scale != 1.0:
        torch._foreach_mul_(gradients, 1 / scale)
    norm = torch.nn.utils.get_total_norm(gradients)
    loss, grad_norm = torch.stack((loss_sum / batch.count, norm)).tolist()  # synchronizes with the device
    finite = math.isfinite(loss) and math.isfinite(grad_norm)
    scale_is_minimal = scale <= 1.0
    if runtime.dtype == torch.float16:
        _update_loss_scale(counters, finite)
    if finite:
        if clip and grad_norm + CLIP_EPS > clip:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), clip, norm)
        for optimizer in optimizers:
            optimizer.step()
    if not several:  # frees their memory until the next step
        for optimizer in optimizers:
            optimizer.zero_grad()
    return StepResult(loss, grad_norm, finite, not finite and scale_is_minimal)


def _update_loss_scale(counters: Counters, finite: bool) -> None:
    """Halves the loss scale of fp16 on an overflow (not below 1); doubles it after GROWTH_INTERVAL good steps."""
    counters.good_steps = counters.good_steps + 1 if finite else 0
    if not finite:
        counters.loss_scale = max(1.0, counters.loss_scale / 2)
    elif counters.good_steps >= GROWTH_INTERVAL:
        counters.loss_scale, counters.good_steps = counters.loss_scale * 2, 0


def _dropout_seed(seed: int, step: int, micro_step: int, rank: int) -> int:
    text = f"{seed}:{step}:{micro_step}:{rank}:dropout"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
