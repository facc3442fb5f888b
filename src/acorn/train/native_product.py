"""A network's matrix products in fp16 where the CPU is faster at them, with everything between them in fp32."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acorn.model.gpt import GPT, MLP
from acorn.runtime.fp16_product import Fp16Product


class NativeLinear(nn.Module):
    """The same as nn.Linear, up to fp16's rounding.

    Args:
        original: whose weight and bias it shares.
    """

    def __init__(self, original: nn.Linear, product: Fp16Product) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) as (..., out)."""
        if x.dtype != torch.float32:
            return F.linear(x, self.weight, self.bias)
        y: Tensor = _Linear.apply(x.flatten(0, -2), self.weight, self.bias, self._product)
        return y.view(*x.shape[:-1], len(self.weight))


class _Linear(torch.autograd.Function):
    """x (N, in) weight (out, in)^T + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, product: Fp16Product) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.product = product
        return product(x, weight.T, bias=bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, product = grad_outputs[0], ctx.product
        grad_x = product(grad, weight) if ctx.needs_input_grad[0] else None
        _add_gradient(weight, grad, x, product)
        return grad_x, None, grad.sum(0) if ctx.needs_input_grad[2] else None, None


class NativeReluMLP(MLP):
    """The same as the original's MLP, up to fp16's rounding. Where nothing is dropped its products do the ReLU, too.

    As operations of their own that, its gradient and the bias are a seventeenth of its time: each goes over (B, T, F).

    Args:
        original: whose weights and biases it shares.
    """

    def __init__(self, original: MLP, product: Fp16Product) -> None:
        nn.Module.__init__(self)  # MLP's makes weights
        self.architecture, self.dropout = original.architecture, original.dropout
        self.up_proj, self.down_proj = original.up_proj, original.down_proj
        self._product = product

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) in its shape."""
        if x.dtype != torch.float32 or (self.dropout.training and self.dropout.p):
            return super().forward(x)
        up, down = self.up_proj, self.down_proj
        y: Tensor = _ReluMLP.apply(x.flatten(0, -2), up.weight, up.bias, down.weight, down.bias, self._product)
        return y.view_as(x)


class _ReluMLP(torch.autograd.Function):
    """relu(x (N, C) up (F, C)^T + up_bias) down (C, F)^T + down_bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, product: Fp16Product
    ) -> Tensor:
        hidden = product(x, up.T, bias=up_bias, relu=True)
        ctx.save_for_backward(x, up, hidden, down)
        ctx.product = product
        return product(hidden, down.T, bias=down_bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, up, hidden, down = ctx.saved_tensors
        grad, product = grad_outputs[0], ctx.product
        grad_hidden = product(grad, down)
        torch.ops.aten.threshold_backward.grad_input(grad_hidden, hidden, 0, grad_input=grad_hidden)  # ReLU's, in place
        _add_gradient(down, grad, hidden, product)
        _add_gradient(up, grad_hidden, x, product)
        needs = ctx.needs_input_grad
        grad_x = product(grad_hidden, up) if needs[0] else None
        return grad_x, None, grad_hidden.sum(0) if needs[2] else None, None, grad.sum(0) if needs[4] else None, None


def _add_gradient(weight: Tensor, grad_y: Tensor, x: Tensor, product: Fp16Product) -> None:
    """Adds to the gradient of weight (out, in), where y (N, out) = x (N, in) weight^T. The product itself does."""
    if weight.requires_grad:
        weight.grad = product(grad_y.mT, x, weight.grad, add=weight.grad is not None)


def use_fp16_products(model: GPT, product: Fp16Product) -> None:
    """Lets `model`'s linear layers multiply in fp16."""
    for module in reversed(list(model.modules())):  # what is inside an MLP before the MLP
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, NativeLinear(child, product))
            elif type(child) is MLP and child.architecture == "original":
                setattr(module, name, NativeReluMLP(child, product))
