"""Cross-entropy straight from the last activations, a group of tokens at a time.

Logits are the largest tensor of training: 8 sequences of 512 tokens times 28,144 entries are 461 MB in fp32, and
their gradient as much again. Here each group's logits live only until its loss and gradients are taken, which is
possible because the loss is a plain sum: the backward pass only scales what the forward pass already found. Logits
turn into their own gradient in place, and are never whole in fp32. On a CPU the place of a group's logits is kept for
as long as the model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE = -1
"""Target of positions that do not count."""

GROUP = {"cpu": 2048, "cuda": 8192, "mps": 2048}
"""Device -> tokens whose logits exist at once, in the precision of the matrix products."""

CHUNK = {"cpu": 256, "cuda": 2048, "mps": 256}
"""Device -> tokens whose logits are in fp32 at once. At 8,192 entries 256 of them are 8 MB, which a processor's cache
can hold; a GPU needs more of them to be busy."""


class SoftmaxGradient(nn.Module):
    """Turns logits into the gradient of the loss by them, in place. A module, so that it can be compiled."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The losses' sum in fp32; `logits` (n, V) become probabilities - one-hot(targets).

        A row whose target is IGNORE counts nothing in the sum; its gradient means nothing.
        """
        rows, index = torch.arange(len(logits), device=logits.device), targets.clamp(min=0)
        log_probabilities = F.log_softmax(logits.float(), -1)
        of_target = log_probabilities[rows, index]  # (n,)
        if logits.is_cuda:  # where writing to places, repeatably, sorts them first and takes longer than all the rest
            one_hot = torch.arange(logits.size(1), device=logits.device) == index[:, None]
            logits.copy_(log_probabilities.exp() - one_hot.float())
        else:
            logits.copy_(log_probabilities.exp_())
            logits[rows, index] = (of_target.exp() - 1).to(logits.dtype)
        return -(of_target * (targets != IGNORE)).sum()


class LinearCrossEntropy(nn.Module):
    """Loss of the logits `x @ weight.T`, summed in fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax_gradient = SoftmaxGradient()
        self._logits_room: Tensor | None = None

    def forward(self, x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses in nats, and the count of targets, both scalars.

        Args:
            x: activations (N, C).
            weight: (V, C).
            targets: ids (N,); IGNORE does not count.
        """
        count = (targets != IGNORE).sum()
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            return self.loss_sum(x, weight, targets), count
        total = x.new_zeros((), dtype=torch.float32)
        chunk = CHUNK[x.device.type]
        for part, wanted in zip(x.split(chunk), targets.split(chunk), strict=True):
            logits = self.multiply(part, weight.T).float()
            total += F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum")
        return total, count

    def loss_sum(self, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """The sum of the losses, for a backward pass; arguments as for `forward`."""
        total: Tensor = _WithGradients.apply(x, weight, targets, self)
        return total

    def with_gradients(
        self, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss's sum and its gradients by x (N, C), in x's type, and by the weight (V, C), in fp32.

        Args:
            x, weight, targets: as for `forward`.
            dtype: of the products.
        """
        narrow = weight.to(dtype)
        turned = self.weight_turned(narrow)  # (C, V)
        total = x.new_zeros((), dtype=torch.float32)
        grad_x, grad_weight = torch.empty_like(x), None
        group = GROUP[x.device.type]
        room = self.room_for_logits(min(group, x.size(0)), narrow)
        for begin in range(0, x.size(0), group):
            part, wanted = x[begin : begin + group].to(dtype), targets[begin : begin + group]
            logits = self.multiply(part, turned, out=room[: part.size(0)])
            total += self.to_gradient(logits, wanted)
            counts = (wanted != IGNORE)[:, None].to(dtype)
            grad_x[begin : begin + group] = self.multiply(logits, narrow) * counts
            grad_weight = self.add_weight_gradient(grad_weight, logits, part * counts)
        if grad_weight is None:  # no tokens
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        return total, grad_x, grad_weight

    def multiply(self, a: Tensor, b: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
        """a @ b, written to `out` if that is given, or added to what is there."""
        return out.addmm_(a, b) if add and out is not None else torch.mm(a, b, out=out)

    def to_gradient(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As `softmax_gradient`, for a group's logits, a chunk of them at a time."""
        chunk = CHUNK[logits.device.type]
        parts = zip(logits.split(chunk), targets.split(chunk), strict=True)
        return torch.stack([self.softmax_gradient(rows, wanted) for rows, wanted in parts]).sum()

    def weight_turned(self, weight: Tensor) -> Tensor:
        """The weight (V, C) as (C, V), as a product takes it."""
        return weight.T

    def add_weight_gradient(self, sums: Tensor | None, grad_logits: Tensor, x: Tensor) -> Tensor:
        """grad_logits (n, V)^T x (n, C), which is (V, C), in fp32; added to `sums`, in place, where there are some.

        In 16 bits on a CPU oneDNN copies a left factor that is turned round once for every part of the result, so the
        smaller one is turned round beforehand: 40 ms instead of 70 for 2,048 tokens of 512 channels and 28,144 entries.
        """
        if x.dtype == torch.float32:  # the product itself adds, without a place of its own
            return self.multiply(grad_logits.T, x, out=sums, add=sums is not None)
        gradient = (x.T.contiguous() @ grad_logits).T if x.is_cpu else grad_logits.T @ x
        return gradient.float() if sums is None else sums.add_(gradient)

    def room_for_logits(self, n: int, weight: Tensor) -> Tensor:
        """Where a group's logits, (n, V), are written: on a CPU the same place in every step.

        If it were given back, smaller blocks would be put there before the next step wants it, and the process would
        take more and more: 1,747 MiB instead of 1,280 at 28,144 entries in fp32 (docs/lab-notebook.md).
        """
        V = weight.size(0)
        if not weight.is_cpu:
            return weight.new_empty(n, V)
        kept = self._logits_room
        if kept is not None and kept.dtype == weight.dtype and kept.numel() >= n * V:
            return kept[: n * V].view(n, V)
        kept = self._logits_room = None  # the old one goes before the new one is made
        self._logits_room = weight.new_empty(n * V)
        return self._logits_room.view(n, V)


class _WithGradients(torch.autograd.Function):
    """The gradients are taken in the forward pass, while the logits are there; the backward pass scales them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, loss: LinearCrossEntropy) -> Tensor:
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        total, grad_x, grad_weight = loss.with_gradients(x, weight, targets, dtype)
        ctx.save_for_backward(grad_x, grad_weight)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_x, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        grad_weight.mul_(scale)  # in place: PyTorch refuses a second backward pass, which would scale it twice
        # A scalar of fp32 stays one: rounded to grad_x's bf16, 1 / 3,072 would be 0.2 % too large.
        return grad_x * scale, grad_weight.to(ctx.weight_dtype).contiguous(), None, None
