"""What a tagger says of sentences: a tag for each word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acorn.data.examples import TokenExample
from acorn.errors import DamageError, InputError
from acorn.evaluate.label_outputs import label_outputs, probabilities_of
from acorn.evaluate.predict import Prediction
from acorn.evaluate.predictions import CHECK_FILES
from acorn.model.gpt import GPT
from acorn.progress import QUIET, Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.word_text import WordText


def predict_tags(
    model: GPT,
    text: WordText,
    labels: Sequence[str],
    sentences: Sequence[Sequence[str]],
    places: Sequence[str],
    runtime: Runtime,
    progress: Progress = QUIET,
) -> list[Prediction]:
    """Predictions in the order of `sentences`; none depends on the other sentences.

    Args:
        text: how words become token ids.
        labels: the tags, in the order of the model's outputs.
        sentences: of words without white space, at least one each.
        places: where each sentence stands, for messages.

    Raises:
        InputError: a sentence is longer than the context, or cannot be encoded.
        DamageError: the model's outputs are not finite.
    """
    if not sentences:
        return []
    read = encoded_sentences(text, sentences, places, model.config.block_size)
    outputs = label_outputs(model, read, runtime, text.tokenizer.pad_id, progress)
    if not np.isfinite(outputs).all():
        raise DamageError("The model's outputs are not finite.", where="the model", fix=CHECK_FILES)
    probabilities = probabilities_of(outputs, "tag")
    words = zip(probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist(), strict=True)
    found = []
    for sentence in sentences:
        best = [next(words) for _ in sentence]
        tags = [labels[number] for number, _ in best]
        sure = [probability for _, probability in best]
        found.append(Prediction(" ".join(sentence), tokens=list(sentence), tags=tags, probabilities=sure))
    return found


def encoded_sentences(
    text: WordText, sentences: Sequence[Sequence[str]], places: Sequence[str], context: int
) -> list[TokenExample]:
    """The token ids of each sentence, with the places of its words' tags, none of which has a target.

    Each word gets a tag, so a sentence is never cut.

    Raises:
        InputError: a sentence is longer than the context, or cannot be encoded.
    """
    try:
        encoded = text.encode_words(sentences)
    except InputError:
        encoded = [_alone(text, words, place) for words, place in zip(sentences, places, strict=True)]
    for (ids, _), place in zip(encoded, places, strict=True):
        if len(ids) > context:
            raise InputError(
                f"The sentence has {len(ids):,} tokens, more than the context of {context:,}.",
                where=place,
                fix="split it; a sentence is never cut, since each of its words gets a tag",
            )
    return [
        TokenExample(np.array(ids, np.int32), np.array(rows, np.int64), np.full(len(rows), -1)) for ids, rows in encoded
    ]


def _alone(text: WordText, words: Sequence[str], place: str) -> tuple[list[int], list[int]]:
    """The ids and the places of the tags of one sentence, with its place in the errors."""
    try:
        return text.encode_words([words])[0]
    except InputError as error:
        raise InputError(error.what, where=f"{place}: {error.where}", fix=error.fix) from None
