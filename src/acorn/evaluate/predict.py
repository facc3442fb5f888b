"""What a label head says of texts: labels with probabilities, or values. Tags of words are in `predict_tags`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.data.examples import TokenExample
from acorn.errors import DamageError, InputError, UsageError
from acorn.evaluate.label_outputs import label_outputs, probabilities_of
from acorn.evaluate.labels import THRESHOLD
from acorn.evaluate.predictions import CHECK_FILES, named
from acorn.model.gpt import GPT
from acorn.progress import QUIET, Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.label_text import LabelText

TEXTS_AT_ONCE = 256
"""Texts that are encoded and predicted on together, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one text.

    Attributes:
        text: as it was given; of a tagger, the words joined by spaces.
        label: the most probable label; of a model that gives several, a list of those with a probability above 0.5, in
            the order of the model's labels. None: the model gives values.
        probabilities: label -> probability. They sum to 1 where a text has one label; of several labels each is for
            itself. Of a tagger: of each word's tag, a list. None: the model gives values.
        value: in the unit of the labels that the model was trained on. None: the model gives labels.
        tokens: the words of a sentence. None: the model is no tagger.
        tags: the most probable tag of each word; of equally probable ones the first. None: the model is no tagger.
        cut: the text is longer than the model's context, and only its beginning was read.
    """

    text: str
    label: str | list[str] | None = None
    probabilities: dict[str, float] | list[float] | None = None
    value: float | None = None
    tokens: list[str] | None = None
    tags: list[str] | None = None
    cut: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """The prediction as `acorn predict --json` has it; `cut` is left out where the whole text was read."""
        if self.tags is not None:
            return {"tokens": self.tokens, "tags": self.tags, "probabilities": self.probabilities}
        found = (
            {"value": self.value}
            if self.label is None
            else {
                "label": self.label,
                "probabilities": self.probabilities,
            }
        )
        return {"text": self.text, **found, **({"cut": True} if self.cut else {})}


def predict(
    model: GPT,
    text: LabelText,
    labels: Sequence[str],
    texts: Sequence[str],
    runtime: Runtime,
    progress: Progress = QUIET,
) -> list[Prediction]:
    """Predictions in the order of `texts`; none depends on the other texts.

    Of a text that is longer than the model's context, the beginning is read.

    Args:
        text: how a text becomes token ids.
        labels: names of the model's outputs.

    Raises:
        UsageError: the model gives several values a text.
        InputError: a text cannot be encoded.
        DamageError: the model's outputs are not finite.
    """
    spec, context = model.head_spec, model.config.block_size
    assert spec is not None
    if spec.kind == "value" and spec.outputs > 1:
        raise UsageError(
            f"The model gives {spec.outputs} values for each text; acorn predicts one.",
            where="the model",
            fix="name a model with one value, or use transformers",
        )
    if not texts:
        return []
    encoded = text.encode(texts)
    read = [_as_read(ids[:context]) for ids in encoded]
    outputs = label_outputs(model, read, runtime, text.tokenizer.pad_id, progress)
    if not np.isfinite(outputs).all():
        raise DamageError("The model's outputs are not finite.", where="the model", fix=CHECK_FILES)
    cut = [len(ids) > context for ids in encoded]
    if spec.kind == "value":
        values = outputs[:, 0].tolist()
        return [Prediction(one, value=value, cut=is_cut) for one, value, is_cut in zip(texts, values, cut, strict=True)]
    probabilities = probabilities_of(outputs, spec.kind)
    return [
        Prediction(one, label, dict(zip(labels, row.tolist(), strict=True)), cut=is_cut)
        for one, label, row, is_cut in zip(
            texts, predicted_labels(probabilities, labels, spec.kind), probabilities, cut, strict=True
        )
    ]


def predicted_labels(probabilities: NDArray[np.float64], labels: Sequence[str], kind: str) -> list[Any]:
    """The label of each row of probabilities (N, L), of equal ones the first; of a head of kind `labels` a list each,
    of those above 0.5."""
    if kind == "labels":
        return [named(row, labels) for row in probabilities > THRESHOLD]
    return [labels[number] for number in probabilities.argmax(axis=1)]


def check_fits(text: LabelText, texts: Sequence[str], places: Sequence[str], context: int) -> None:
    """Refuses texts that are longer than the context of the model.

    Args:
        places: where each text stands, for the message.

    Raises:
        InputError: one is longer, or cannot be encoded.
    """
    for ids, where in zip(text.encode(texts), places, strict=True):
        if len(ids) > context:
            raise InputError(
                f"The text has {len(ids):,} tokens, more than the context of {context:,}.",
                where=where,
                fix="shorten it, or set finetune.overlong=cut to read its beginning; what is cut is counted and said",
            )


def _as_read(ids: Sequence[int]) -> TokenExample:
    """Token ids of which the last is read by the head; nothing is learned."""
    return TokenExample(np.array(ids, np.int32), np.array([len(ids) - 1]), np.array([-1]))
