"""Layers: they own the parameters, and call the operations that they were built with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acorn.model.ops import Ops


class Linear(nn.Module):
    """A matrix and an optional bias; uninitialized until `GPT.init_weights`."""

    def __init__(self, inputs: int, outputs: int, bias: bool, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """x (..., inputs) -> (..., outputs), optionally with ReLU."""
        return self.ops.linear(x, self.weight, self.bias, relu)

    def merged_weight(self) -> Tensor:
        """The matrix (outputs, inputs) that the layer multiplies with, for readers other than its forward."""
        return self.weight

    def replace_weight(self, weight: Tensor) -> None:
        """Sets the matrix that the layer multiplies with, in place."""
        self.weight.copy_(weight)


class Embedding(nn.Module):
    """A table of n vectors, zero until `GPT.init_weights`."""

    def __init__(self, n: int, width: int, ops: Ops) -> None:
        super().__init__()
        self.ops = ops
        self.weight = nn.Parameter(torch.zeros(n, width))

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) -> (..., width)."""
        return self.ops.embedding(ids, self.weight)

    def merged_weight(self) -> Tensor:
        """The table (n, width) that is looked up, for readers other than the layer's forward."""
        return self.weight


class LayerNorm(nn.Module):
    """Normalization by mean and variance, with weight and bias."""

    def __init__(self, width: int, eps: float, ops: Ops) -> None:
        super().__init__()
        self.ops, self.eps = ops, eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width), normalized over the last dimension."""
        return self.ops.layernorm(x, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Normalization by the root mean square, with a weight."""

    def __init__(self, width: int, eps: float, ops: Ops) -> None:
        super().__init__()
        self.ops, self.eps = ops, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., width), normalized over the last dimension."""
        return self.ops.rmsnorm(x, self.weight, self.eps)


class Dropout(nn.Module):
    """Drops each element with probability p (below 1) while training."""

    def __init__(self, p: float, ops: Ops) -> None:
        super().__init__()
        self.ops, self.p = ops, p

    def forward(self, x: Tensor) -> Tensor:
        """x with dropout while training, else x."""
        return self.ops.dropout(x, self.p) if self.training and self.p else x
