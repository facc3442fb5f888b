"""Whether validation loss rose again after its lowest value. The rule for the terminal, the report and the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIN_RISE_RATIO = 1.01
"""Ratio of the last validation loss to the lowest above which it counts as risen: both score the same tokens."""


def remedies(task: str) -> str:
    """What helps against a rise.

    Args:
        task: of a finetuning run; empty: the run was trained on text.
    """
    more = "examples" if task else "text"
    return (
        f"More {more}, fewer steps or model.dropout=0.1 help; checkpoint.final=best puts the best weights into final/."
    )


@dataclass(frozen=True)
class Rise:
    """A validation loss that ended clearly above its lowest value. Losses are in the unit of the run's task."""

    best_step: int
    best_loss: float
    last_step: int
    last_loss: float

    @property
    def told(self) -> str:
        """What happened and why, as a sentence without its full stop."""
        return (
            f"Validation loss was lowest at step {self.best_step:,} ({self.best_loss:.3f}) and is {self.last_loss:.3f} "
            "now: the model is overfitting, or the learning rate is too high"
        )

    def limit(self, unit: str) -> str:
        """The limit for the model card of the last weights.

        Args:
            unit: of the losses.
        """
        return (
            f"Validation loss was lowest at step {self.best_step:,} ({self.best_loss:.3f} {unit}) and had "
            f"risen to {self.last_loss:.3f} at step {self.last_step:,}: these weights overfit their training data, or "
            "the learning rate was too high. The weights with the lowest validation loss are not in this folder."
        )


def rise_of(
    best_step: int | None, best_loss: float | None, last_step: int | None, last_loss: float | None
) -> Rise | None:
    """The rise from the lowest to the last validation loss; None without a clear one, or where a value is unknown."""
    if best_step is None or best_loss is None or last_step is None or last_loss is None:
        return None
    return Rise(best_step, best_loss, last_step, last_loss) if last_loss >= MIN_RISE_RATIO * best_loss else None


def rise_in(validations: Sequence[Mapping[str, Any]]) -> Rise | None:
    """The rise in the validation records of metrics.jsonl."""
    known = [record for record in validations if "loss" in record]
    if not known:
        return None
    best, last = min(known, key=lambda record: record["loss"]), known[-1]
    return rise_of(best["step"], best["loss"], last["step"], last["loss"])
