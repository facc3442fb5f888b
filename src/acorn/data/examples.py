"""Makes token ids from the examples of a task, with the positions that are trained and their targets.

An example that is longer than the context is refused, dropped or cut, as `finetune.overlong` says. What is dropped or
cut is counted and reported; an answer is never cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from acorn.counting import counted
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET, Progress
from acorn.text.examples import Chat, Completion, Example, Labeled, Tagged, Task
from acorn.tokenizer.chat_format import ANSWERING, Encoded
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.template_format import AnyChatFormat
from acorn.tokenizer.word_text import WordText

Overlong = Literal["refuse", "drop", "cut_prompt", "cut"]

OVERLONG: Mapping[Task, tuple[Overlong, ...]] = {
    "chat": ("refuse", "drop", "cut_prompt"),
    "complete": ("refuse", "drop", "cut_prompt"),
    "classify": ("cut", "refuse", "drop"),
    "regress": ("cut", "refuse", "drop"),
    "tag": ("refuse", "drop"),
}
"""Task -> the values of `finetune.overlong` that it allows, the default first."""

TASK = "encoding examples"
"""The name of the work in progress reports."""

_EXAMPLES_BETWEEN = 512  # examples between two progress reports


@dataclass(frozen=True, eq=False)
class TokenExample:
    """An example as a model reads it.

    Attributes:
        ids: the tokens that are read (T,).
        rows: positions in `ids` that are trained, ascending (n,).
        values: their targets: ids of the next tokens or classes (n,), int64; or several numbers each (n, L), float32.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.int64]
    values: NDArray[Any]


@dataclass(frozen=True)
class EncodedSide:
    """The examples of one side.

    Attributes:
        examples: those that are used, in order.
        tokens: the same examples as token ids.
        dropped: number of examples that were dropped because they are too long.
        cut: number of examples that were cut.
    """

    examples: list[Example]
    tokens: list[TokenExample]
    dropped: int = 0
    cut: int = 0


class TooLongError(Exception):
    """The example does not fit the context, even if its whole prompt is cut."""


class ExampleEncoder(Protocol):
    """How the examples of a task become token ids."""

    def encode(self, examples: Sequence[Example]) -> list[TokenExample]:
        """Encodes examples without cutting them.

        Raises:
            InputError: one cannot be encoded.
        """

    def cut(self, example: Example, whole: TokenExample, context: int) -> TokenExample:
        """The example, cut to at most `context` tokens.

        Raises:
            TooLongError: that is impossible without cutting an answer.
        """


@dataclass(frozen=True)
class CompletionEncoder:
    """Prompts and completions.

    Attributes:
        trains_prompts: all tokens are trained, not only those of the answer.
    """

    format: CompletionFormat
    trains_prompts: bool = False

    def encode(self, examples: Sequence[Example]) -> list[TokenExample]:
        return [self._tokens(_located(example, self._whole)) for example in examples]

    def cut(self, example: Example, whole: TokenExample, context: int) -> TokenExample:
        """Cuts the beginning of the prompt, but keeps the tokens that every prompt begins with."""
        encoded = self._whole(example)
        first = encoded.trained.index(True)
        start = len(self.format.encode_prompt(""))
        room = context + 1 - start - (len(encoded.ids) - first)
        if room < 0:
            raise TooLongError
        kept = [*range(start), *range(max(start, first - room), len(encoded.ids))]
        return self._tokens(Encoded([encoded.ids[i] for i in kept], [encoded.trained[i] for i in kept]))

    def _whole(self, example: Example) -> Encoded:
        assert isinstance(example, Completion)
        return self.format.encode(example.prompt, example.completion)

    def _tokens(self, encoded: Encoded) -> TokenExample:
        return _next_tokens(encoded, self.trains_prompts)


@dataclass(frozen=True)
class ChatEncoder:
    """Conversations.

    Attributes:
        trains_prompts: all tokens are trained, not only those of the answers.
    """

    format: AnyChatFormat
    trains_prompts: bool = False

    def encode(self, examples: Sequence[Example]) -> list[TokenExample]:
        return [self._tokens(_located(example, self._whole)) for example in examples]

    def cut(self, example: Example, whole: TokenExample, context: int) -> TokenExample:
        """Drops whole turns after the system message, the first ones first, until the rest fits."""
        assert isinstance(example, Chat)
        messages = list(example.messages)
        system = 1 if messages[0].role == "system" else 0
        while True:
            later = [n for n, message in enumerate(messages) if n > system and message.role == "user"]
            if not later:
                raise TooLongError
            del messages[system : later[0]]
            if not any(message.trained and message.role == ANSWERING for message in messages):
                raise TooLongError
            tokens = self._tokens(self._whole(replace(example, messages=tuple(messages))))
            if len(tokens.ids) <= context:
                return tokens

    def _whole(self, example: Example) -> Encoded:
        assert isinstance(example, Chat)
        return self.format.encode(example.messages)

    def _tokens(self, encoded: Encoded) -> TokenExample:
        return _next_tokens(encoded, self.trains_prompts)


@dataclass(frozen=True)
class LabelEncoder:
    """Texts with labels or values, which are predicted at the last token.

    Attributes:
        values: an example -> its target: a class, or several numbers.
    """

    text: LabelText
    values: Callable[[Labeled], int | Sequence[float]]

    def encode(self, examples: Sequence[Example]) -> list[TokenExample]:
        labeled = [example for example in examples if isinstance(example, Labeled)]
        try:
            encoded = self.text.encode([example.text for example in labeled])
        except InputError:
            encoded = [_located(example, self._alone) for example in labeled]
        return [self._tokens(ids, example) for ids, example in zip(encoded, labeled, strict=True)]

    def cut(self, example: Example, whole: TokenExample, context: int) -> TokenExample:
        """Cuts the end of the text."""
        return replace(whole, ids=whole.ids[:context], rows=np.array([context - 1]))

    def _alone(self, example: Example) -> list[int]:
        assert isinstance(example, Labeled)
        return self.text.encode(example.text)[0]

    def _tokens(self, ids: Sequence[int], example: Labeled) -> TokenExample:
        value = self.values(example)
        values = np.array([value], np.int64 if isinstance(value, int) else np.float32)
        return TokenExample(np.array(ids, np.int32), np.array([len(ids) - 1]), values)


@dataclass(frozen=True)
class TagEncoder:
    """Sentences and the tags of their words.

    Attributes:
        numbers: tag -> its id.
    """

    text: WordText
    numbers: Mapping[str, int]

    def encode(self, examples: Sequence[Example]) -> list[TokenExample]:
        tagged = [example for example in examples if isinstance(example, Tagged)]
        try:
            encoded = self.text.encode_words([example.tokens for example in tagged])
        except InputError:
            encoded = [_located(example, self._alone) for example in tagged]
        return [self._tokens(*its, example) for its, example in zip(encoded, tagged, strict=True)]

    def cut(self, example: Example, whole: TokenExample, context: int) -> TokenExample:
        """Every word gets a tag, so none is left out."""
        raise TooLongError

    def _alone(self, example: Example) -> tuple[list[int], list[int]]:
        assert isinstance(example, Tagged)
        return self.text.encode_words([example.tokens])[0]

    def _tokens(self, ids: Sequence[int], rows: Sequence[int], example: Tagged) -> TokenExample:
        values = np.array([self.numbers[tag] for tag in example.tags], np.int64)
        return TokenExample(np.array(ids, np.int32), np.array(rows, np.int64), values)


def class_values(labels: Sequence[str]) -> Callable[[Labeled], int]:
    """A function: example -> the number of its label."""
    numbers = {label: number for number, label in enumerate(labels)}
    return lambda example: numbers[example.labels[0]]


def several_values(labels: Sequence[str]) -> Callable[[Labeled], Sequence[float]]:
    """A function: example -> for each label 1 if the example has it, else 0."""
    return lambda example: [float(label in example.labels) for label in labels]


def scaled_values(scale: float) -> Callable[[Labeled], Sequence[float]]:
    """A function: example -> its value, divided by `scale`."""
    return lambda example: [_value(example) / scale]


def label_scale(examples: Sequence[Example]) -> float:
    """The power of two that is nearest to the root mean square of the values of `examples`.

    Values divided by it are near 1, whatever their unit. Multiplying weights by a power of two is exact.
    """
    values = np.array([_value(example) for example in examples if isinstance(example, Labeled)])
    size = float(np.sqrt(np.mean((values / np.abs(values).max(initial=0.0)) ** 2))) if np.any(values) else 0.0
    if not size:
        return 1.0
    return float(2.0 ** round(math.log2(size) + math.log2(float(np.abs(values).max()))))


def resolved_overlong(task: Task, asked: str) -> Overlong:
    """How examples of `task` that are too long are treated.

    Args:
        asked: `finetune.overlong`.

    Raises:
        UsageError: the task does not allow this value.
    """
    for known in OVERLONG[task]:
        if asked in ("auto", known):
            return known
    raise UsageError(
        f"Examples of {task} cannot be treated so where they are too long.",
        where=f"finetune.overlong = {asked}",
        fix=f"use one of {', '.join(OVERLONG[task])}",
    )


def encode_side(
    name: str,
    examples: Sequence[Example],
    encoder: ExampleEncoder,
    context: int,
    overlong: Overlong,
    progress: Progress = QUIET,
) -> EncodedSide:
    """Encodes the examples of a side.

    Args:
        name: of the side, for messages.
        context: the model's context, in tokens.

    Raises:
        InputError: an example cannot be encoded, has no trained token, or is too long; or all are dropped.
    """
    kept: list[Example] = []
    tokens: list[TokenExample] = []
    too_long: list[int] = []
    for begin in range(0, len(examples), _EXAMPLES_BETWEEN):
        some = examples[begin : begin + _EXAMPLES_BETWEEN]
        progress.at(f"{TASK} of {name}", begin, len(examples), "examples")
        for example, whole in zip(some, encoder.encode(some), strict=True):
            if not len(whole.rows):
                raise InputError(
                    "No token of this example is trained.", where=example.where, fix="give it an answer, or remove it"
                )
            fitting: TokenExample | None = whole
            if len(whole.ids) > context:
                too_long.append(len(whole.ids))
                fitting = _shortened(example, whole, encoder, context, overlong)
            if fitting is not None:
                kept.append(example)
                tokens.append(fitting)
    progress.at(f"{TASK} of {name}", len(examples), len(examples), "examples")
    progress.end(f"{TASK} of {name}")
    if too_long:
        done = {"drop": "left out", "cut": "cut at the end", "cut_prompt": "cut at the beginning"}[overlong]
        progress.note(
            f"{name}: {counted(len(too_long), 'example')} of {len(examples):,} longer than the context of {context:,} "
            f"tokens (the longest: {max(too_long):,}), {done} (finetune.overlong = {overlong})."
        )
    if not kept:
        raise InputError(
            f"{name}: none of {counted(len(examples), 'example')} fits the context of {context:,} tokens.",
            where="finetune.overlong = drop",
            fix="give shorter examples, or start from a model with a longer context",
        )
    dropped = len(examples) - len(kept)
    return EncodedSide(kept, tokens, dropped, len(too_long) - dropped)


def _shortened(
    example: Example, whole: TokenExample, encoder: ExampleEncoder, context: int, overlong: Overlong
) -> TokenExample | None:
    """The example, shortened to fit; None: it is dropped.

    Raises:
        InputError: it must not be shortened, or that would cut an answer.
    """
    if overlong == "drop":
        return None
    if overlong != "refuse":
        try:
            return encoder.cut(example, whole, context)
        except TooLongError:
            raise InputError(
                f"The answer and what has to stand before it are longer than the context of {context:,} tokens, and an "
                "answer is never cut.",
                where=example.where,
                fix="shorten it, or set finetune.overlong=drop to leave such examples out",
            ) from None
    others = (
        "drop" if isinstance(example, Tagged) else f"drop or {'cut' if isinstance(example, Labeled) else 'cut_prompt'}"
    )
    raise InputError(
        f"The example has {len(whole.ids):,} tokens, more than the context of {context:,}.",
        where=example.where,
        fix=f"shorten it, or set finetune.overlong to {others}; what is left out is counted and said",
    )


def _located(example: Example, encode: Callable[[Example], Any]) -> Any:
    """`encode(example)`, with the place of the example in its errors."""
    try:
        return encode(example)
    except InputError as error:
        raise InputError(error.what, where=f"{example.where}: {error.where}", fix=error.fix) from None


def _next_tokens(encoded: Encoded, trains_all: bool) -> TokenExample:
    """The example with a target at each position whose next token is trained."""
    ids = np.array(encoded.ids, np.int32)
    trained = np.array(encoded.trained) | trains_all
    rows = np.flatnonzero(trained[1:])
    return TokenExample(ids[:-1], rows, ids[1:][rows].astype(np.int64))


def _value(example: Labeled) -> float:
    assert isinstance(example.label, float)
    return example.label
