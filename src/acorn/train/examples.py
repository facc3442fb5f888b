"""The data of finetuning: examples of a task, in an order that depends on the run's seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from acorn.config import Config, TrainConfig
from acorn.data.example_batches import ExampleOrder, micro_batches, padded_length
from acorn.data.examples import EncodedSide, TokenExample
from acorn.data.replay import Replay
from acorn.evaluate.answers import answer_figures, scored_answers
from acorn.evaluate.entities import tag_figures
from acorn.evaluate.label_outputs import ROWS_AT_ONCE, label_loss, label_outputs, probabilities_of
from acorn.evaluate.labels import label_scores, several_label_scores
from acorn.evaluate.predictions import named
from acorn.evaluate.regression import value_figures
from acorn.model.gpt import GPT
from acorn.model.label_head import count_targets
from acorn.progress import Progress
from acorn.runtime.device import Runtime
from acorn.text.examples import Example, Labeled, Tagged
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train.answers import answered, asked, questions_of, round_trip_of
from acorn.train.task import FinetuningTask
from acorn.train.training_data import Batch, Score

SHOWN_SAMPLES = 3
"""Number of validation questions that samples answer if train.sample_prompts is not set."""

ANSWERED = 32
"""Number of questions that are answered in each validation while training."""

FIGURES = (
    *("accuracy", "macro_f1", "micro_f1", "mean_absolute_error", "token_accuracy", "entity_f1"),
    *("exact_match", "normalized_match", "ended_rate"),
)
"""Figures of tasks that are written to metrics.jsonl."""


@dataclass(frozen=True)
class Examples:
    """A `TrainingData` whose samples are examples.

    Attributes:
        sides: the encoded sides `train`, `valid` and perhaps `test`.
        replay: windows of the base's text among the samples; None: all samples are examples.
    """

    task: FinetuningTask
    sides: Mapping[str, EncodedSide]
    config: Config
    replay: Replay | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.task.tokenizer

    @functools.cached_property
    def row_tokens(self) -> int:
        """Tokens of the longest padded row of training."""
        return longest_row(self.sides["train"].tokens, self.config.model.block_size, self.replay is not None)

    def batch(self, first: int, count: int, *, rollbacks: int, done: float) -> Batch:
        """Samples `first` to `first + count - 1`: examples in padded micro-batches of similar length, then windows."""
        tokens = self.sides["train"].tokens
        windows = range(0) if self.replay is None else self.replay.windows(first, count)
        order = ExampleOrder(len(tokens), self.config.train.seed, rollbacks)
        chosen = [tokens[number] for number in order.examples(first - windows.start, count - len(windows))]
        rows = self.config.train.micro_batch_size or count
        if self.replay is None or not windows:
            return self._of_examples(chosen, rows)
        of_windows = Batch.of_windows(*self.replay.read(windows, rollbacks), rows)
        return self._of_examples(chosen, rows) + of_windows if chosen else of_windows

    def _of_examples(self, chosen: Sequence[TokenExample], rows: int) -> Batch:
        """A batch of examples. `rows`: rows of the longest length that a micro-batch may have."""
        values = torch.from_numpy(np.concatenate([example.values for example in chosen]))
        budget = rows * self.row_tokens
        return Batch(
            list(micro_batches(chosen, self.config.model.block_size, budget, self.tokenizer.pad_id)),
            tokens=sum(len(example.ids) for example in chosen),
            count=count_targets(values, self.task.head),
            context=max(len(example.ids) for example in chosen),
        )

    def epochs(self, samples: int) -> float:
        """Epochs completed after so many samples; every example is seen once per epoch."""
        windows = 0 if self.replay is None else self.replay.before(samples)
        return (samples - windows) / len(self.sides["train"].tokens)

    def score(self, model: GPT, runtime: Runtime, progress: Progress) -> Score:
        """Scores the validation side, or its first examples up to train.eval_tokens tokens."""
        side = first_tokens(self.sides["valid"], self.config.train.eval_tokens)
        if self.task.head is not None:
            outputs = label_outputs(model, side.tokens, runtime, self.tokenizer.pad_id, progress)
            loss_sum, weight = label_loss(outputs, side.tokens, self.task.head.kind, self.task.head.class_weights)
            figures = predicted_figures(side.examples, outputs, self.task) if np.isfinite(outputs).all() else {}
            return Score(loss_sum, weight, figures)
        loss_sum, count = answer_loss(model, side.tokens, runtime, self.tokenizer.pad_id, progress)
        if not np.isfinite(loss_sum):
            return Score(loss_sum, count)
        assert self.task.format is not None
        questions = questions_of(side.examples, self.task.format, ANSWERED)
        if not questions:  # conversations in which nobody is asked
            return Score(loss_sum, count)
        answers = answered(model, self.tokenizer, questions, self.task.end_ids, runtime, progress)
        round_trip = round_trip_of(self.tokenizer)
        of_answers = answer_figures(scored_answers(answers, round_trip), round_trip, task=self.task.name)
        return Score(loss_sum, count, {name: of_answers[name] for name in FIGURES if name in of_answers})

    def samples(self, model: GPT, runtime: Runtime, progress: Progress) -> list[tuple[str, str]]:
        """Answers to train.sample_prompts, else to the first validation questions; empty for a task with labels."""
        if self.task.format is None:
            return []
        train = self.config.train
        if train.sample_prompts != TrainConfig().sample_prompts:
            questions = asked(train.sample_prompts, self.task.format)
        else:
            questions = questions_of(self.sides["valid"].examples, self.task.format, SHOWN_SAMPLES)
        if not questions:
            return []
        answers = answered(
            model,
            self.tokenizer,
            questions,
            self.task.end_ids,
            runtime,
            progress,
            most_tokens=train.sample_tokens,
            task="Sampling",
        )
        return [(answer.prompt, answer.prompt + answer.text) for answer in answers]

    def figures(self, split: str, loss: float) -> dict[str, float]:
        """Empty: the loss of an answer or a label is not expressed in other units."""
        return {}


def longest_row(examples: Sequence[TokenExample], context: int, has_windows: bool = False) -> int:
    """Tokens of the longest padded row of `examples`, or of windows among them, which fill the context."""
    return context if has_windows else padded_length(max(len(example.ids) for example in examples), context)


def first_tokens(side: EncodedSide, limit: int) -> EncodedSide:
    """The first examples of a side, up to `limit` tokens but at least one example; 0: all."""
    if not limit:
        return side
    ends = np.cumsum([len(example.ids) for example in side.tokens])
    count = int(np.searchsorted(ends, limit)) + 1
    return dataclasses.replace(side, examples=side.examples[:count], tokens=side.tokens[:count])


def answer_loss(
    model: GPT, examples: Sequence[TokenExample], runtime: Runtime, pad_id: int, progress: Progress
) -> tuple[float, int]:
    """The loss of a language model at the trained tokens of `examples`, summed (nats), and their number.

    Uses no random numbers and does not change the model. An exception from `progress` ends the work.
    """
    context, total, done = model.config.block_size, 0.0, 0
    count = sum(len(example.rows) for example in examples)
    was_training = model.training
    model.eval()
    try:
        for ids, targets, rows in micro_batches(examples, context, ROWS_AT_ONCE * context, pad_id):
            inputs, wanted = ids.to(model.device), targets.to(model.device)
            with torch.no_grad(), runtime.autocast():
                loss, _ = model(inputs, wanted, rows=None if rows is None else rows.to(model.device))
            total += float(loss)  # summed in double precision
            done += int((targets >= 0).sum())
            progress.at("Scoring", done, count, "tokens")
    finally:
        model.train(was_training)
    progress.end("Scoring")
    return total, count


def predicted_figures(
    examples: Sequence[Example], outputs: NDArray[np.float64], task: FinetuningTask
) -> dict[str, float]:
    """The figures for metrics.jsonl of a label head's outputs (N, L), which must be finite."""
    spec = task.head
    assert spec is not None
    if spec.kind == "tag":
        tagged = [example for example in examples if isinstance(example, Tagged)]
        predicted_tags = tags_of(tagged, outputs, task.labels)
        found = tag_figures([example.tags for example in tagged], predicted_tags)
        return {name: found[name] for name in FIGURES if found.get(name) is not None}
    labeled = [example for example in examples if isinstance(example, Labeled)]
    if spec.kind == "value":
        true = [float(example.label) for example in labeled if isinstance(example.label, float)]
        found = value_figures(true, (task.scale * outputs[:, 0]).tolist())
    elif spec.kind == "class":
        predicted = [task.labels[number] for number in outputs.argmax(axis=1)]
        found = label_scores([str(example.label) for example in labeled], predicted, task.labels)
    else:
        sets = [named(row, task.labels) for row in probabilities_of(outputs, spec.kind) > 0.5]
        found = several_label_scores([example.labels for example in labeled], sets, task.labels)
    return {name: found[name] for name in FIGURES if found.get(name) is not None}


def tags_of(examples: Sequence[Tagged], outputs: NDArray[np.float64], labels: Sequence[str]) -> list[list[str]]:
    """The likeliest tag of each word of each sentence, from the outputs at all words (N, L)."""
    chosen = iter(outputs.argmax(axis=1).tolist())
    return [[labels[next(chosen)] for _ in example.tokens] for example in examples]
