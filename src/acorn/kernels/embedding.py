"""Embeddings with in-place gradient accumulation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding(ids: Tensor, weight: Tensor) -> Tensor:
    """Rows of weight (n, C) for ids (...): (..., C). The backward adds to the rows of `weight.grad` that were read.

    PyTorch's backward creates a gradient of the whole table's size, mostly zero, for every micro-batch, which takes
    far more time and memory (docs/lab-notebook.md).
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
