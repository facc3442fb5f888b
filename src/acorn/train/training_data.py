"""What the loop asks of the data it trains on, whatever that is made of."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer


class TrainingData(Protocol):
    """Numbered samples to train on, and a validation side. Nothing of it changes during a run."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def batch(self, first: int, count: int, *, rollbacks: int, done: float) -> tuple[Tensor, Tensor]:
        """Samples `first` to `first + count - 1`, in the order that follows so many rollbacks.

        Args:
            done: share of the run done before this step, in [0, 1).

        Returns:
            inputs and targets, int64 (B, T) each on the CPU; B is a multiple of `count`.
        """

    def epochs(self, samples: int) -> float:
        """How often the data has been seen after so many samples."""

    def score(self, model: GPT, runtime: Runtime, progress: Progress) -> tuple[float, int]:
        """The loss of the validation side: summed over its target tokens, in nats, and their number."""

    def figures(self, split: str, loss: float) -> dict[str, float]:
        """Further fields of metrics.jsonl that say what a mean `loss`, in nats per token, of a split means."""
