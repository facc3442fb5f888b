"""Linear layers with fp16 matmuls, for CPUs on which these are faster. Inputs and results are fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from acorn.kernels.matmul import Fp16Matmul
from acorn.model import ops


def linear(
    matmul: Fp16Matmul, in_place: bool, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False
) -> Tensor:
    """x weight^T + bias, equal to `ops.linear` up to fp16 rounding. Bias and ReLU are fused into the matmul.

    As separate operations each would read and write a tensor (B, T, F) in memory.

    Args:
        in_place: whether the backward's matmul adds the weight's gradient to `weight.grad` directly.
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
