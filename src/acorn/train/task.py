"""A finetuning task: how its examples are encoded, which head is trained, and what is exported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acorn.config import FinetuneConfig
from acorn.data.example_folder import ExampleFolder
from acorn.data.examples import (
    ChatEncoder,
    CompletionEncoder,
    ExampleEncoder,
    LabelEncoder,
    TagEncoder,
    class_values,
    label_scale,
    scaled_values,
    several_values,
)
from acorn.errors import UsageError
from acorn.model.label_head import HeadSpec
from acorn.text.examples import Example, Labeled, Task
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.template_format import AnyChatFormat, chat_format_of
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.word_text import WordText

LABEL_TASKS: tuple[Task, ...] = ("classify", "regress", "tag")


@dataclass(frozen=True)
class FinetuningTask:
    """A task with the examples' labels and the base model's tokenizer.

    Attributes:
        tokenizer: the one to store and to export.
        encoder: encodes the examples.
        head: the label head; None: the language model's own head is kept.
        labels: in the order of their ids.
        scale: targets are values divided by it; the exported weights include it.
        format: the format of prompts and answers; None for a task with labels.
    """

    name: Task
    tokenizer: Tokenizer
    encoder: ExampleEncoder
    head: HeadSpec | None = None
    labels: tuple[str, ...] = ()
    scale: float = 1.0
    format: AnyChatFormat | CompletionFormat | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the label head's outputs."""
        return ("value",) if self.name == "regress" else self.labels

    @property
    def chat(self) -> AnyChatFormat | None:
        """The format of conversations; None for other tasks."""
        return None if isinstance(self.format, CompletionFormat) else self.format

    @property
    def trained_ids(self) -> tuple[int, ...]:
        """Reserved tokens that are trained, in addition to `end_ids`: the markup of chats if all tokens are trained."""
        if not isinstance(self.encoder, ChatEncoder) or not self.encoder.trains_prompts:
            return ()
        return tuple(set(self.encoder.format.markup_ids).intersection(self.tokenizer.reserved_ids) - {*self.end_ids})

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer; empty for a task with labels."""
        return () if self.format is None else self.format.end_ids


def task_of_run(found: ExampleFolder, finetune: FinetuneConfig, tokenizer: Tokenizer) -> FinetuningTask:
    """The task of a run's examples.

    Args:
        tokenizer: of the base model, or of the run.

    Raises:
        UsageError: the model has no chat format, or a setting does not fit the task.
        InputError: the model's chat template cannot be used.
    """
    check_settings(found.task, finetune)
    trains_prompts = finetune.loss_on == "all"
    if found.task == "complete":
        completions = CompletionFormat(tokenizer)
        return FinetuningTask("complete", tokenizer, CompletionEncoder(completions, trains_prompts), format=completions)
    if found.task == "chat":
        chats = _chat_format(tokenizer, found.manifest.get("chat") or {})
        return FinetuningTask("chat", tokenizer, ChatEncoder(chats, trains_prompts), format=chats)
    text, training = LabelText(tokenizer), found.sides["train"]
    if found.task == "regress":
        scale = label_scale(training)
        encoder = LabelEncoder(text, scaled_values(scale))
        return FinetuningTask("regress", text.tokenizer, encoder, HeadSpec("value", 1), scale=scale)
    labels = found.labels
    if found.task == "tag":
        words = WordText(tokenizer)
        numbers = {tag: number for number, tag in enumerate(labels)}
        return FinetuningTask("tag", words.tokenizer, TagEncoder(words, numbers), HeadSpec("tag", len(labels)), labels)
    if found.multi_label:
        if finetune.class_weights != "none":
            raise UsageError(
                "Class weights are for examples with one label each.",
                where="finetune.class_weights",
                fix="leave it out",
            )
        encoder = LabelEncoder(text, several_values(labels))
        return FinetuningTask("classify", text.tokenizer, encoder, HeadSpec("labels", len(labels)), labels)
    weights = balanced_weights(training, labels) if finetune.class_weights == "balanced" else ()
    head = HeadSpec("class", len(labels), class_weights=weights)
    return FinetuningTask("classify", text.tokenizer, LabelEncoder(text, class_values(labels)), head, labels)


def check_settings(task: Task, finetune: FinetuneConfig) -> None:
    """Refuses settings that have no effect for `task`.

    Raises:
        UsageError: there is such a setting.
    """
    if task in LABEL_TASKS and finetune.loss_on != "answers":
        raise UsageError(f"Only labels are learned in {task}, no tokens.", where="finetune.loss_on", fix="leave it out")
    if task in LABEL_TASKS and finetune.replay:
        raise UsageError(
            f"A model for the task {task} does not continue text, so the base's own text teaches it nothing.",
            where="finetune.replay",
            fix="leave it out",
        )
    if task != "classify" and finetune.class_weights != "none":
        raise UsageError(
            f"The task {task} has no classes to weigh.", where="finetune.class_weights", fix="leave it out"
        )


def balanced_weights(examples: Sequence[Example], labels: Sequence[str]) -> tuple[float, ...]:
    """The weight of each label, in inverse proportion to its number of examples; the mean over all examples is 1.

    A label without an example has the weight 1.
    """
    counts = Counter(label for example in examples if isinstance(example, Labeled) for label in example.labels)
    total, present = counts.total(), len(counts)
    return tuple(total / (present * counts[label]) if counts[label] else 1.0 for label in labels)


def _chat_format(tokenizer: Tokenizer, stored: Mapping[str, Any]) -> AnyChatFormat:
    """The format of the base model's conversations, with the template in the manifest of the examples."""
    now = datetime.fromisoformat(stored["now"]) if stored.get("now") else None
    tokens = stored.get("special_tokens")
    return chat_format_of(tokenizer, stored.get("template", ""), special_tokens=tokens, now=now)
