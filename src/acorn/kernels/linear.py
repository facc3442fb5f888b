"""Linear layers whose matmuls are in fp16 where the CPU is faster at them, with everything between them in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acorn.kernels.matmul import Fp16Matmul
from acorn.model import ops


def linear(
    matmul: Fp16Matmul, in_place: bool, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False
) -> Tensor:
    """As `ops.linear`, up to fp16's rounding. The matmul adds the bias and does the ReLU where its result lies.

    As operations of their own they would take a good part of an MLP's time: each goes over (B, T, F).

    Args:
        in_place: the weight's gradient is added to `weight.grad` in the backward pass, which the matmul itself does.
    """
    if x.dtype != torch.float32:
        return ops.linear(x, weight, bias, relu)
    y: Tensor = _Linear.apply(x.flatten(0, -2), weight, bias, relu, matmul, in_place)
    return y.view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """x (N, in) weight (out, in)^T + bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, matmul: Fp16Matmul, in_place: bool
    ) -> Tensor:
        y = matmul(x, weight.T, bias=bias, relu=relu)
        ctx.save_for_backward(x, weight, y if relu else None)
        ctx.rest = matmul, in_place
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        matmul, in_place = ctx.rest
        grad = grad_outputs[0]
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)  # ReLU's
        grad_x = matmul(grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1] and in_place:
            weight.grad = matmul(grad.mT, x, weight.grad, add=weight.grad is not None)
        elif ctx.needs_input_grad[1]:
            grad_weight = matmul(grad.mT, x)
        return grad_x, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None, None, None, None
