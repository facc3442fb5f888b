"""Embeddings whose gradient is added row by row to that which they have."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of weight (n, C) for ids (...): (..., C). Its gradient is added to `weight.grad` in the backward pass.

    PyTorch's makes a gradient of the whole table's size, zero but for the rows of the tokens, in every pass and adds it
    up: 20 ms for 512 tokens and a table of 28,144 x 512, and 55 MiB. Adding the rows takes 0.05 ms.
    """
    vectors: Tensor = _Rows.apply(ids, weight)
    return vectors


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids, weight)
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None]:
        ids, weight = ctx.saved_tensors
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.index_add_(0, ids.flatten(), grad_outputs[0].flatten(0, -2).to(weight.dtype))
        return None, None
