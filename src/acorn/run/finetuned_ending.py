"""The end of a finetuning run: its figures and predictions on the held-out sides, and its model folder."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from acorn.checkpoint.adapter import write_adapter
from acorn.checkpoint.bases import bases_of_run
from acorn.checkpoint.card_parts import text_description
from acorn.checkpoint.model_folder import write_model_folder
from acorn.config_files import load_run_config
from acorn.errors import DamageError
from acorn.evaluate.random_weights import RANDOM_WEIGHTS, random_weights_figures
from acorn.export.finetuned_card import finetuned_card
from acorn.files import read_sealed_json, write_file
from acorn.model.gpt import GPT
from acorn.model.label_head import LabelHead
from acorn.origin import Base
from acorn.progress import Progress
from acorn.report.confusion_png import confusion_png
from acorn.run.base_text import Forgetting
from acorn.run.example_scoring import Figures, Records, score_side
from acorn.run_folder import RunFolder
from acorn.train.examples import Examples
from acorn.train.setup import Setup

HELD_OUT = ("valid", "test")


@dataclass(frozen=True)
class FinetuningEnding:
    """The `Ending` of a run that was trained on examples.

    Attributes:
        forgetting: what shows how much of the base's text is forgotten; None: it is not measured.
        predictions: held-out side -> what the model said of each of its examples; filled by `evaluate`.
    """

    setup: Setup
    data: Examples
    forgetting: Forgetting | None = None
    predictions: dict[str, Records] = field(default_factory=dict)

    def evaluate(self, model: GPT, progress: Progress) -> dict[str, Figures]:
        """Figures of each held-out side, beside those of the baselines."""
        evaluation: dict[str, Figures] = {}
        from_random_weights = random_weights_figures(self.setup.run, self.setup.config.train.steps)
        for name in HELD_OUT:
            if name not in self.data.sides:
                continue
            try:
                evaluation[name], self.predictions[name] = score_side(
                    model,
                    self.data.task,
                    self.data.sides[name],
                    self.data.sides["train"].examples,
                    self.setup.runtime,
                    progress,
                    class_weights=self.setup.config.finetune.class_weights,
                )
            except DamageError as error:  # figures that are not finite are no reason to lose the model
                progress.note(f"No figures of {name}: {error.what}")
                continue
            if name in from_random_weights:
                evaluation[name].setdefault("baselines", {})[RANDOM_WEIGHTS] = from_random_weights[name]
        if self.forgetting and "valid" in evaluation:
            evaluation["valid"] |= self.forgetting.figures(model, self.setup.runtime, progress)
            evaluation["valid"]["notes"] += [self.forgetting.note] if self.forgetting.note else []
        return evaluation

    def write(
        self,
        run: RunFolder,
        model: GPT,
        evaluation: Mapping[str, Mapping[str, Any]],
        step: int,
        limits: Sequence[str],
    ) -> None:
        """Writes predictions.jsonl, confusion.png (one label an example), `final/` with its card, and `adapter/`."""
        named_side = next((name for name in reversed(HELD_OUT) if name in self.predictions), "")
        lines = [json.dumps(record, ensure_ascii=False) for record in self.predictions.get(named_side, [])]
        text = "".join(f"{line}\n" for line in lines)
        write_file(run.predictions, text.encode("utf-8", "backslashreplace"))
        confusion = evaluation.get(named_side, {}).get("confusion")
        if confusion:
            confusion_png(self.data.task.labels, confusion, run.confusion)
        task, bases = self.data.task, bases_of_run(run)
        exported = with_scaled_values(model, task.scale)
        write_model_folder(
            run.final,
            exported,
            task.tokenizer,
            self._card(bases, evaluation, step, limits),
            labels=task.output_names if task.head else (),
            chat_template=task.chat.template if task.chat else "",
            end_ids=task.end_ids,
            trained_ids=sorted(task.trained_ids),
        )
        if model.lora is not None:
            trained_on = text_description(self.setup.config.data.source)
            write_adapter(run.adapter, exported, bases, task.output_names if task.head else (), trained_on)

    @staticmethod
    def missing(run: RunFolder) -> list[str]:
        """Names of the files beside `final/` that are not there, and the baseline if its figures are not told yet."""
        try:
            evaluation = read_sealed_json(run.evaluation)
        except DamageError:
            evaluation = {}
        sides = {name: figures for name, figures in evaluation.items() if isinstance(figures, dict)}
        wanted = [run.predictions]
        wanted += [run.confusion] if any("confusion" in figures for figures in sides.values()) else []
        told = []
        with contextlib.suppress(DamageError):
            config = load_run_config(run.config)
            wanted += [run.adapter] if config.lora.rank else []
            known = random_weights_figures(run, config.train.steps)
            told = [
                run.baseline.name
                for name in known.keys() & sides.keys()
                if sides[name].get("baselines", {}).get(RANDOM_WEIGHTS) != known[name]
            ]
        return [path.name for path in wanted if not path.exists()] + told

    def _card(
        self,
        bases: Sequence[Base],
        evaluation: Mapping[str, Mapping[str, Any]],
        step: int,
        limits: Sequence[str],
    ) -> str:
        """The text of README.md in `final/`."""
        task = self.data.task
        return finetuned_card(
            self.setup.config,
            task.tokenizer.kind,
            task.head,
            task.labels,
            examples=len(self.data.sides["train"].tokens),
            steps=step,
            bases=bases,
            evaluations=[{**figures, "split": name} for name, figures in evaluation.items()],
            limits=limits,
        )


def with_scaled_values(model: GPT, scale: float) -> GPT:
    """`model` with outputs that are `scale` times as large. It shares all other weights; `model` is not changed."""
    if model.score is None or scale == 1:
        return model
    scaled = copy.copy(model)
    scaled._modules = dict(model._modules)
    with torch.device(model.device):
        head = LabelHead(model.config.n_embd, model.score.spec)
    head.weight = nn.Parameter(model.score.weight.detach() * scale)
    if model.score.bias is not None:
        head.bias = nn.Parameter(model.score.bias.detach() * scale)
    scaled.score = head
    return scaled
