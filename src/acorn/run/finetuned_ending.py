"""The end of a finetuning run: its figures and predictions on the held-out sides, and its model folder."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acorn.checkpoint.adapter import write_adapter
from acorn.checkpoint.answer_card import AnswerFacts, write_answer_card
from acorn.checkpoint.bases import bases_of_run
from acorn.checkpoint.card_parts import text_description
from acorn.checkpoint.model_folder import write_model_folder
from acorn.checkpoint.task_card import TaskFacts, write_task_card
from acorn.config_files import load_run_config
from acorn.data.examples import EncodedSide
from acorn.errors import DamageError
from acorn.evaluate import baselines
from acorn.evaluate.answers import answer_figures, scored_answers
from acorn.evaluate.label_outputs import label_outputs, probabilities_of
from acorn.evaluate.labels import label_figures, several_label_figures
from acorn.evaluate.predictions import named
from acorn.evaluate.random_weights import RANDOM_WEIGHTS, random_weights_figures
from acorn.evaluate.regression import value_figures
from acorn.files import read_sealed_json, write_file
from acorn.model.gpt import GPT
from acorn.model.label_head import LabelHead
from acorn.origin import Base
from acorn.progress import Progress
from acorn.report.confusion_png import confusion_png
from acorn.run_folder import RunFolder
from acorn.text.examples import Example, Labeled
from acorn.train.answers import answered, questions_of, round_trip_of
from acorn.train.examples import Examples, answer_loss
from acorn.train.setup import Setup

HELD_OUT = ("valid", "test")

MOST_ANSWERED = 500
"""Questions of a side that are answered at the end; of longer sides the first ones, which is said."""

Figures = dict[str, Any]
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class FinetuningEnding:
    """The `Ending` of a run that was trained on examples.

    Attributes:
        predictions: held-out side -> what the model said of each of its examples; filled by `evaluate`.
    """

    setup: Setup
    data: Examples
    predictions: dict[str, Records] = field(default_factory=dict)

    def evaluate(self, model: GPT, progress: Progress) -> dict[str, Figures]:
        """Figures of each held-out side, beside those of the baselines."""
        evaluation: dict[str, Figures] = {}
        from_random_weights = random_weights_figures(self.setup.run, self.setup.config.train.steps)
        for name in HELD_OUT:
            if name not in self.data.sides:
                continue
            side = self.data.sides[name]
            score = self._scored_labels if self.data.task.head is not None else self._scored_answers
            try:
                evaluation[name], self.predictions[name] = score(model, side, progress)
            except DamageError as error:  # figures that are not finite are no reason to lose the model
                progress.note(f"No figures of {name}: {error.what}")
                continue
            if name in from_random_weights:
                evaluation[name].setdefault("baselines", {})[RANDOM_WEIGHTS] = from_random_weights[name]
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

    def _scored_labels(self, model: GPT, side: EncodedSide, progress: Progress) -> tuple[Figures, Records]:
        """Figures and predictions of a label head."""
        task, runtime = self.data.task, self.setup.runtime
        assert task.head is not None
        outputs = label_outputs(model, side.tokens, runtime, self.data.tokenizer.pad_id, progress)
        training, scored = _labeled(self.data.sides["train"].examples), _labeled(side.examples)
        true: list[Any] = [example.label for example in scored]
        pairs = (_texts_and_labels(training), _texts_and_labels(scored))
        weights = self.setup.config.finetune.class_weights
        if task.head.kind == "value":
            values = (task.scale * outputs[:, 0]).tolist()
            figures = value_figures(true, values) | {"baselines": baselines.value_baselines(*pairs)}
            return figures, [
                {"text": one.text, "label": one.label, "value": value}
                for one, value in zip(scored, values, strict=True)
            ]
        labels = task.labels
        if not np.isfinite(outputs).all():
            raise DamageError("The model's outputs are not finite.")
        probabilities = probabilities_of(outputs, task.head.kind)
        if task.head.kind == "class":
            figures = label_figures(true, probabilities, labels)
            figures["baselines"] = baselines.label_baselines(*pairs, labels, class_weights=weights)
            predicted: list[Any] = [labels[number] for number in probabilities.argmax(axis=1)]
        else:
            figures = several_label_figures(true, probabilities, labels)
            figures["baselines"] = baselines.several_label_baselines(*pairs, labels)
            predicted = [named(row, labels) for row in probabilities > 0.5]
        return figures, _records(scored, predicted, probabilities, labels)

    def _scored_answers(self, model: GPT, side: EncodedSide, progress: Progress) -> tuple[Figures, Records]:
        """Figures and answers of a language model, generated as whoever asks it gets them."""
        task, runtime, tokenizer = self.data.task, self.setup.runtime, self.data.tokenizer
        assert task.format is not None
        loss_sum, count = answer_loss(model, side.tokens, runtime, tokenizer.pad_id, progress)
        if not np.isfinite(loss_sum):
            raise DamageError("The model's loss is not finite.")
        every = questions_of(side.examples, task.format)
        questions = every[:MOST_ANSWERED]
        if not questions:
            return {"task": task.name, "examples": 0, "answer_loss": loss_sum / count, "notes": []}, []
        answers = answered(model, tokenizer, questions, task.end_ids, runtime, progress)
        round_trip = round_trip_of(tokenizer)
        scored = scored_answers(answers, round_trip)
        figures = answer_figures(scored, round_trip, task=task.name, answer_loss=loss_sum / count)
        if len(questions) < len(every):
            figures["notes"].append(
                f"Matches are of the first {len(questions):,} of {len(every):,} answers; the loss is of all."
            )
        return figures, [one.record for one in scored]

    def _card(
        self,
        bases: Sequence[Base],
        evaluation: Mapping[str, Mapping[str, Any]],
        step: int,
        limits: Sequence[str],
    ) -> str:
        """The text of README.md in `final/`."""
        config, task = self.setup.config, self.data.task
        adapter = {"rank of the adapters": config.lora.rank} if config.lora.rank else {}
        recipe = {
            "optimizer": config.optimizer.name,
            "peak learning rate": config.optimizer.peak_lr,
            "schedule": config.schedule.name,
            "examples per step": config.train.batch_size,
            **adapter,
            "precision": config.train.precision,
            "seed": config.train.seed,
        }
        common: dict[str, Any] = {
            "name": config.name,
            "config": config.model,
            "tokenizer_kind": task.tokenizer.kind,
            "sources": config.data.source,
            "examples": len(self.data.sides["train"].tokens),
            "steps": step,
            "recipe": recipe,
            "bases": bases,
            "evaluations": [{**figures, "split": name} for name, figures in evaluation.items()],
            "limits": limits,
        }
        if task.head is None:
            return write_answer_card(AnswerFacts(task=task.name, **common))
        return write_task_card(TaskFacts(head=task.head, labels=task.labels, **common))


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


def _labeled(examples: Sequence[Example]) -> list[Labeled]:
    return [example for example in examples if isinstance(example, Labeled)]


def _texts_and_labels(examples: Sequence[Labeled]) -> baselines.Labeled:
    return baselines.Labeled([example.text for example in examples], [example.label for example in examples])


def _records(
    examples: Sequence[Labeled],
    predicted: Sequence[Any],
    probabilities: NDArray[np.float64],
    labels: Sequence[str],
) -> Records:
    return [
        {
            "text": example.text,
            "label": list(example.label) if isinstance(example.label, tuple) else example.label,
            "predicted": guess,
            "probabilities": dict(zip(labels, row.tolist(), strict=True)),
        }
        for example, guess, row in zip(examples, predicted, probabilities, strict=True)
    ]
