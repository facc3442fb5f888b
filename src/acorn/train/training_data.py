"""The interface between the training loop and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer

MicroBatch = tuple[Tensor, Tensor, Tensor | None]
"""Token ids (B, T); targets, in the shape that the model's head takes; and the indices (n,) of the counted rows in the
flattened (B T), or None: the head computes every row. All on the CPU. A GPU always computes every row."""


@dataclass(frozen=True)
class Batch:
    """The samples of one optimizer step, as the micro-batches that are computed one after another.

    Attributes:
        micro_batches: the losses of all of them are summed and divided by `count`.
        tokens: number of input tokens without padding, for the metrics.
        count: number of counted targets in the whole batch, or the sum of their weights.
        context: tokens in the longest sequence.

    Raises:
        ValueError: no target is counted, so there is no loss.
    """

    micro_batches: Sequence[MicroBatch]
    tokens: int
    count: float
    context: int

    def __post_init__(self) -> None:
        if not self.count > 0:
            raise ValueError(f"a batch without counted targets has no loss (count = {self.count})")

    @property
    def is_gathered(self) -> bool:
        """Whether the head computes some rows only."""
        return any(rows is not None for _, _, rows in self.micro_batches)

    def __add__(self, other: Batch) -> Batch:
        """The samples of both. Losses are sums over counted targets, so each target counts as much as before."""
        return Batch(
            [*self.micro_batches, *other.micro_batches],
            tokens=self.tokens + other.tokens,
            count=self.count + other.count,
            context=max(self.context, other.context),
        )

    @classmethod
    def of_windows(cls, inputs: Tensor, targets: Tensor, size: int) -> Batch:
        """A batch of sequences (B, T) whose targets are all counted, with `size` sequences per micro-batch."""
        slices = zip(inputs.split(size), targets.split(size), strict=True)
        micro_batches = [(ids, wanted, None) for ids, wanted in slices]
        return cls(micro_batches, tokens=inputs.numel(), count=targets.numel(), context=inputs.size(1))


@dataclass(frozen=True)
class Score:
    """The score of the validation split.

    Attributes:
        loss_sum: summed over the counted targets, in nats.
        count: the number of these targets, or the sum of their weights.
        figures: further fields of metrics.jsonl, such as an accuracy.
    """

    loss_sum: float
    count: float
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.loss_sum / self.count


class TrainingData(Protocol):
    """Numbered training samples and a validation split, which do not change during a run."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def batch(self, first: int, count: int, *, rollbacks: int, done: float) -> Batch:
        """Samples `first` to `first + count - 1`, in the order after so many rollbacks.

        Args:
            done: share of the run completed before this step, in [0, 1).
        """

    def epochs(self, samples: int) -> float:
        """Epochs completed after so many samples."""

    def score(self, model: GPT, runtime: Runtime, progress: Progress) -> Score:
        """Scores the validation split. An exception from `progress` ends the work."""

    def samples(self, model: GPT, runtime: Runtime, progress: Progress) -> list[tuple[str, str]]:
        """Text generated with the current weights, as (prompt, text). An exception from `progress` ends the work.

        It has its own random numbers, so training is not affected. Empty: this kind of model generates no text.

        Raises:
            DamageError: the logits are not finite.
        """

    def figures(self, split: str, loss: float) -> dict[str, float]:
        """Further fields of metrics.jsonl, which express the mean `loss` of a split (nats per token) in other units."""
