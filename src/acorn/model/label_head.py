"""A head that maps activations to labels or values instead of the next token, and its losses.

Sequence classifiers use its output at a sequence's last token, taggers at the last token of every word. The targets say
which positions are counted, so losses are sums and counts that do not depend on the grouping into micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acorn.model.loss import IGNORE

LabelKind = Literal["class", "labels", "value", "tag"]


@dataclass(frozen=True)
class HeadSpec:
    """What a label head predicts.

    Attributes:
        kind: the kind of targets, and their loss.
            `class`, `tag`: one of L classes. Targets (B, T), the class of each position; IGNORE is not counted.
            Cross-entropy in nats.
            `labels`: any of L labels. Targets (B, T, L), 1.0 or 0.0; NaN is not counted. Binary cross-entropy in nats.
            `value`: L real values. Targets (B, T, L); NaN is not counted. Squared error.
        outputs: L.
        bias: whether a bias is added to the outputs.
        class_weights: weight of each class in loss and count (`class`, `tag`); empty: 1 each.

    Raises:
        ValueError: there are no outputs, or the weights do not fit them.
    """

    kind: LabelKind
    outputs: int
    bias: bool = False
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise ValueError(f"a head needs at least one output, not {self.outputs}")
        if not self.class_weights:
            return
        if not self.has_classes:
            raise ValueError(f"class weights are for classes, not for {self.kind!r}")
        if len(self.class_weights) != self.outputs or min(self.class_weights) <= 0:
            raise ValueError(f"{self.outputs} classes need as many weights above 0, not {self.class_weights}")

    @property
    def has_classes(self) -> bool:
        """Whether targets are classes, rather than numbers."""
        return self.kind in ("class", "tag")


def count_targets(targets: Tensor, spec: HeadSpec | None) -> float:
    """The number of counted targets in a batch, or the sum of their class weights; the sum of losses is divided by it.

    Args:
        targets: on the CPU.
        spec: the head; None: the language model's, whose targets are ids.
    """
    if spec is not None and not spec.has_classes:
        return int((~targets.isnan()).sum())
    is_counted = targets != IGNORE
    if spec is None or not spec.class_weights:
        return int(is_counted.sum())
    return float(torch.tensor(spec.class_weights, dtype=torch.float64)[targets[is_counted]].sum())


class LabelHead(nn.Module):
    """A matrix (L, C) and an optional bias, computed in fp32 even inside autocast: it is small, and values need it."""

    def __init__(self, width: int, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.outputs, width))
        self.bias = nn.Parameter(torch.empty(spec.outputs)) if spec.bias else None
        self.class_weights: Tensor | None
        weights = torch.tensor(spec.class_weights) if spec.class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Outputs, or the loss if `targets` are given.

        Args:
            x: activations (..., C).
            targets: (...) for classes, else (..., L); see `HeadSpec`.

        Returns:
            outputs (..., L) in fp32; or (loss summed over the counted targets, their count), both scalars.
        """
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            outputs = F.linear(x.float(), self.weight.float(), bias)
            return outputs if targets is None else self._loss(outputs.flatten(0, -2), targets)

    def _loss(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.spec.has_classes:
            targets = targets.flatten()
            loss = F.cross_entropy(outputs, targets, self.class_weights, ignore_index=IGNORE, reduction="sum")
            is_counted = targets != IGNORE
            if self.class_weights is None:
                return loss, is_counted.sum()
            return loss, (self.class_weights[targets.clamp(min=0)] * is_counted).sum()
        targets = targets.flatten(0, -2)
        is_counted = ~targets.isnan()
        known = targets.nan_to_num(0.0)
        if self.spec.kind == "labels":
            losses = F.binary_cross_entropy_with_logits(outputs, known, reduction="none")
        else:
            losses = (outputs - known).square()
        return (losses * is_counted).sum(), is_counted.sum()
