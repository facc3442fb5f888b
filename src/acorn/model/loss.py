"""Cross-entropy straight from the last activations, a chunk of tokens at a time.

Logits are the largest tensor of training: 8 sequences of 512 tokens times 28,144 entries are 461 MB in fp32, and
their gradient as much again. Here each chunk's logits live only until its loss and gradients are taken, which is
possible because the loss is a plain sum: the backward pass only scales what the forward pass already found.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1
"""Target of positions that do not count."""

CHUNK = 256
"""Tokens whose logits exist at once: at 8,192 entries 8 MB, which a processor's cache can hold."""


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the logits `x @ weight.T`, summed in fp32.

    Args:
        x: activations (N, C).
        weight: (V, C).
        targets: ids (N,); IGNORE does not count.

    Returns:
        the sum of the losses in nats, and the count of targets, both scalars.
    """
    count = (targets != IGNORE).sum()
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _LinearCrossEntropy.apply(x, weight, targets), count
    total = x.new_zeros((), dtype=torch.float32)
    for part, wanted in zip(x.split(CHUNK), targets.split(CHUNK), strict=True):
        logits = F.linear(part, weight).float()
        total += F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum")
    return total, count


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients of each chunk are taken in the forward pass, while its logits are there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        narrow = weight.to(dtype)
        total = x.new_zeros((), dtype=torch.float32)
        grad_x = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for begin in range(0, x.size(0), CHUNK):
            part = x[begin : begin + CHUNK].to(dtype)  # (chunk, C)
            wanted = targets[begin : begin + CHUNK]
            logits = (part @ narrow.T).float()  # (chunk, V)
            counts = (wanted != IGNORE)[:, None]
            index = wanted.clamp(min=0)[:, None]
            log_probabilities = F.log_softmax(logits, -1)
            total -= (log_probabilities.gather(1, index) * counts).sum()
            # d loss / d logits = probabilities - one-hot(target); in place, as each pass over this tensor costs time
            grad = log_probabilities.exp_().scatter_add_(1, index, -torch.ones_like(index, dtype=torch.float32))
            grad = grad.mul_(counts).to(dtype)
            grad_x[begin : begin + CHUNK] = grad @ narrow
            grad_weight.addmm_(grad.T, part) if dtype == torch.float32 else grad_weight.add_(grad.T @ part)
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_x, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        return grad_x * scale.to(grad_x.dtype), (grad_weight * scale).to(ctx.weight_dtype), None
