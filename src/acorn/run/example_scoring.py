"""Figures and predictions of one side of examples, at the end of a finetuning run and in `acorn evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.data.examples import EncodedSide
from acorn.errors import DamageError
from acorn.evaluate import baselines
from acorn.evaluate.answers import answer_figures, scored_answers
from acorn.evaluate.label_outputs import label_outputs, probabilities_of
from acorn.evaluate.labels import label_figures, several_label_figures
from acorn.evaluate.predict import predicted_labels
from acorn.evaluate.predictions import CHECK_FILES
from acorn.evaluate.regression import value_figures
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.run.tag_scoring import NO_TRAINING, scored_tags
from acorn.runtime.device import Runtime
from acorn.text.examples import Example, Labeled
from acorn.train.answers import answered, questions_of, round_trip_of
from acorn.train.examples import answer_loss
from acorn.train.task import FinetuningTask

MOST_ANSWERED = 500
"""Questions of a side that are answered; of longer sides the first ones, which is said."""

Figures = dict[str, Any]
Records = list[dict[str, Any]]


def score_side(
    model: GPT,
    task: FinetuningTask,
    side: EncodedSide,
    training: Sequence[Example] | None,
    runtime: Runtime,
    progress: Progress,
    *,
    class_weights: str = "none",
) -> tuple[Figures, Records]:
    """Figures of a side beside those of the baselines, and what the model said of each of its examples.

    Args:
        training: the examples that the baselines are made from; None: they are unknown.
        class_weights: as `finetune.class_weights`; the baselines have the same.

    Raises:
        DamageError: the model's outputs are not finite.
    """
    if task.head is None:
        return _scored_answers(model, task, side, runtime, progress)
    outputs = label_outputs(model, side.tokens, runtime, task.tokenizer.pad_id, progress)
    if not np.isfinite(outputs).all():
        raise DamageError("The model's outputs are not finite.", where="the model", fix=CHECK_FILES)
    if task.head.kind == "tag":
        return scored_tags(task, outputs, side.examples, training)
    score = _scored_values if task.head.kind == "value" else _scored_labels
    known = None if training is None else _labeled(training)
    return score(task, outputs, _labeled(side.examples), known, class_weights)


def _scored_values(
    task: FinetuningTask,
    outputs: NDArray[np.float64],
    scored: Sequence[Labeled],
    training: Sequence[Labeled] | None,
    class_weights: str,
) -> tuple[Figures, Records]:
    values = (task.scale * outputs[:, 0]).tolist()
    true: list[Any] = [one.label for one in scored]
    figures = value_figures(true, values)
    if training is None:
        found: Figures = {"mean": None, "tfidf_ridge": None, "notes": [NO_TRAINING]}
    else:
        found = baselines.value_baselines(_texts_and_labels(training), _texts_and_labels(scored))
    return figures | {"baselines": found}, [
        {"text": one.text, "label": one.label, "value": value} for one, value in zip(scored, values, strict=True)
    ]


def _scored_labels(
    task: FinetuningTask,
    outputs: NDArray[np.float64],
    scored: Sequence[Labeled],
    training: Sequence[Labeled] | None,
    class_weights: str,
) -> tuple[Figures, Records]:
    """Figures and predictions of a head that gives one label or several."""
    assert task.head is not None
    labels = task.labels
    true: list[Any] = [one.label for one in scored]
    probabilities = probabilities_of(outputs, task.head.kind)
    is_single = task.head.kind == "class"
    figures = (label_figures if is_single else several_label_figures)(true, probabilities, labels)
    if training is None:
        figures["baselines"] = {"majority": None, "tfidf_logistic": None, "notes": [NO_TRAINING]}
    else:
        pairs = _texts_and_labels(training), _texts_and_labels(scored)
        compare = baselines.label_baselines if is_single else baselines.several_label_baselines
        figures["baselines"] = compare(*pairs, labels, class_weights=class_weights)
    predicted = predicted_labels(probabilities, labels, task.head.kind)
    return figures, [
        {
            "text": example.text,
            "label": list(example.label) if isinstance(example.label, tuple) else example.label,
            "predicted": guess,
            "probabilities": dict(zip(labels, row.tolist(), strict=True)),
        }
        for example, guess, row in zip(scored, predicted, probabilities, strict=True)
    ]


def _scored_answers(
    model: GPT, task: FinetuningTask, side: EncodedSide, runtime: Runtime, progress: Progress
) -> tuple[Figures, Records]:
    """Figures and answers of a language model, generated as whoever asks it gets them."""
    tokenizer = task.tokenizer
    assert task.format is not None
    loss_sum, count = answer_loss(model, side.tokens, runtime, tokenizer.pad_id, progress)
    if not np.isfinite(loss_sum):
        raise DamageError("The model's loss is not finite.", where="the model", fix=CHECK_FILES)
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


def _labeled(examples: Sequence[Example]) -> list[Labeled]:
    return [example for example in examples if isinstance(example, Labeled)]


def _texts_and_labels(examples: Sequence[Labeled]) -> baselines.Labeled:
    return baselines.Labeled([example.text for example in examples], [example.label for example in examples])
