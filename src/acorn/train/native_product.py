"""A network's matrix products in fp16 where the CPU is faster at them, with everything between them in fp32."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acorn.model.gpt import GPT
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
        y: Tensor = _Linear.apply(x.flatten(0, -2), self.weight, self._product)
        if self.bias is not None:  # before it is a view: the gradient of a view that was changed is copied three times
            y = y.add_(self.bias)
        return y.view(*x.shape[:-1], len(self.weight))


class _Linear(torch.autograd.Function):
    """x (N, in) weight (out, in)^T; the weight's gradient is added to that which it has, by the product itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, product: Fp16Product) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.product = product
        return product(x, weight.T)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, product = grad_outputs[0], ctx.product
        grad_x = product(grad, weight) if ctx.needs_input_grad[0] else None
        if ctx.needs_input_grad[1]:
            weight.grad = product(grad.mT, x, weight.grad, add=weight.grad is not None)
        return grad_x, None, None


def use_fp16_products(model: GPT, product: Fp16Product) -> None:
    """Lets `model`'s linear layers multiply in fp16."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, NativeLinear(child, product))
