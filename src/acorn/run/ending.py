"""The end of a run: how its model is scored and what is written. Here is the one for pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from acorn.checkpoint.bases import bases_of_run
from acorn.checkpoint.model_card import facts_of_run, write_card
from acorn.checkpoint.model_folder import write_model_folder
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.run.final_scoring import score_held_out
from acorn.run_folder import RunFolder
from acorn.train.setup import Setup
from acorn.train.windows import RunText


class Ending(Protocol):
    """The parts of the end of a run that differ between kinds of runs; the rest is in `finish_run`."""

    def evaluate(self, model: GPT, progress: Progress) -> dict[str, dict[str, Any]]:
        """Figures of each held-out split, as `acorn evaluate --json` gives them. `model` is not changed."""

    def write(
        self,
        run: RunFolder,
        model: GPT,
        evaluation: Mapping[str, Mapping[str, Any]],
        step: int,
        limits: Sequence[str],
    ) -> None:
        """Writes `final/` and the files beside it for this kind of run, each completely or not at all.

        Args:
            evaluation: what `evaluate` returned.
            step: the step of the weights.
            limits: sentences for the model card about limits of these weights that the training curve shows.
        """

    @staticmethod
    def missing(run: RunFolder) -> list[str]:
        """Names of missing files among those that `write` creates beside `final/`."""


@dataclass(frozen=True)
class PretrainingEnding:
    """The `Ending` of a run that was trained on a text."""

    setup: Setup
    text: RunText

    def evaluate(self, model: GPT, progress: Progress) -> dict[str, dict[str, Any]]:
        """Scores the held-out splits; see `score_held_out`."""
        return score_held_out(self.setup, model, self.text, progress)

    def write(
        self,
        run: RunFolder,
        model: GPT,
        evaluation: Mapping[str, Mapping[str, Any]],
        step: int,
        limits: Sequence[str],
    ) -> None:
        """Writes `final/`, with its model card."""
        config, tokenizer, shards = self.setup.config, self.text.tokenizer, self.text.shards
        facts = facts_of_run(
            config,
            config.model,
            tokenizer,
            shards.count("train"),
            step,
            list(evaluation.values()),
            bases_of_run(run),
            limits,
            clean=shards.clean,
        )
        write_model_folder(run.final, model, tokenizer, write_card(facts))

    @staticmethod
    def missing(run: RunFolder) -> list[str]:
        """There are no files beside `final/`."""
        return []
