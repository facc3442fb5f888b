"""The head of a language model: logits of the next token, or the loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acorn.config import ModelConfig
from acorn.model.loss import Workspace
from acorn.model.ops import Ops


class Head(nn.Module):
    """Maps activations to logits, or to the loss without storing the logits of a whole batch."""

    def __init__(self, config: ModelConfig, ops: Ops, workspace: Workspace | None) -> None:
        super().__init__()
        self.ops = ops
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))
        self.workspace = workspace or Workspace()

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """x (..., C) -> logits (..., V); or, with targets (...), the loss summed in fp32 and the count of targets."""
        if targets is None:
            return F.linear(x, self.weight)
        return self.loss(x, self.weight, targets)

    def loss(self, x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy of the logits x weight^T, summed in fp32, and the count of targets."""
        x, targets = x.flatten(0, -2), targets.flatten()  # (N, C), (N,)
        return self.ops.cross_entropy(x, weight, targets, self.workspace, self.ops.matmul_dtype)

    def merged_weight(self) -> Tensor:
        """The matrix (V, C) that gives the logits, for readers other than the head's forward."""
        return self.weight

    def replace_weight(self, weight: Tensor) -> None:
        """Sets the matrix that gives the logits, in place."""
        self.weight.copy_(weight)
