"""The interface between the training loop and its data."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer


class TrainingData(Protocol):
    """Numbered training samples and a validation split, which do not change during a run."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def batch(self, first: int, count: int, *, rollbacks: int, done: float) -> tuple[Tensor, Tensor]:
        """Samples `first` to `first + count - 1`, in the order after so many rollbacks.

        Args:
            done: share of the run completed before this step, in [0, 1).

        Returns:
            inputs and targets, int64 (B, T) each on the CPU; B is a multiple of `count`.
        """

    def epochs(self, samples: int) -> float:
        """Epochs completed after so many samples."""

    def score(self, model: GPT, runtime: Runtime, progress: Progress) -> tuple[float, int]:
        """The loss of the validation split, summed over its target tokens, in nats; and the number of these tokens."""

    def figures(self, split: str, loss: float) -> dict[str, float]:
        """Further fields of metrics.jsonl, which express the mean `loss` of a split (nats per token) in other units."""
