"""Cross-entropy for GPUs. All other operations there are PyTorch's, compiled and captured where that is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acorn.model import loss
from acorn.model.loss import IGNORE, Parts, fresh_memory
from acorn.model.ops import arange_like


def cuda_parts(compiled: bool) -> Parts:
    """The parts of `loss.cross_entropy` on CUDA, with larger groups of tokens, so that the GPU is busy."""
    return Parts(
        group=8192,
        chunk=2048,
        gradient_chunk=2048,
        softmax_gradient=torch.compile(softmax_gradient, dynamic=False) if compiled else softmax_gradient,
        memory=fresh_memory,
    )


def mps_parts(compiled: bool) -> Parts:
    """The parts of `loss.cross_entropy` on Apple's GPUs."""
    softmax = torch.compile(loss.softmax_gradient, dynamic=False) if compiled else loss.softmax_gradient
    return Parts(softmax_gradient=softmax, memory=fresh_memory)


def softmax_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """`loss.softmax_gradient` without a scatter, whose deterministic version on CUDA sorts indices and is slow."""
    index = targets.clamp(min=0)[:, None]  # (n, 1)
    log_probabilities = F.log_softmax(logits.float(), -1)
    of_target = log_probabilities.gather(1, index).squeeze(1)  # (n,)
    one_hot = arange_like(0, logits.size(1), like=index) == index
    logits.copy_(log_probabilities.exp() - one_hot.float())
    return -(of_target * (targets != IGNORE)).sum()
