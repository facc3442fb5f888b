"""Rows as they were read, and the examples of each task that are made from them.

Two examples are equal if their contents are equal, wherever they were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Task = Literal["chat", "complete", "classify", "regress", "tag"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Record:
    """One row as it was read.

    Attributes:
        values: column -> value. A value that cannot be used is an `Unusable`.
        where: its place, such as `mails.csv, line 12`.
        typed: whether values have types, such as numbers and lists. In .csv and .tsv everything is text.
    """

    values: Mapping[str, Any]
    where: str
    typed: bool = True


@dataclass(frozen=True)
class Unusable:
    """Stands for a value that cannot be read. It is an error only if the task needs that value."""

    reason: str  # the rest of a sentence about the column: `is there twice`


@dataclass(frozen=True)
class Refusal:
    """A row that became no example.

    Attributes:
        reason: a sentence.
    """

    where: str
    reason: str


class RowFault(Exception):
    """A row cannot become an example; the message is a sentence with the reason."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        trained: whether a model learns to write it.
    """

    role: Role
    content: str
    trained: bool


@dataclass(frozen=True)
class Chat:
    """A conversation in which at least one message of the assistant is trained."""

    messages: tuple[Message, ...]
    where: str = field(compare=False)


@dataclass(frozen=True)
class Completion:
    """A prompt, which may be empty, and what follows it."""

    prompt: str
    completion: str
    where: str = field(compare=False)


@dataclass(frozen=True)
class Labeled:
    """A text with one label, several labels (sorted, each once), or a value in the unit of the data."""

    text: str
    label: str | tuple[str, ...] | float
    where: str = field(compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels; empty if it has a value."""
        if isinstance(self.label, float):
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label


@dataclass(frozen=True)
class Tagged:
    """The tokens (words) of a sentence, and a tag for each."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    where: str = field(compare=False)


Example = Chat | Completion | Labeled | Tagged


def kind_of(value: object) -> str:
    """The kind of a value, as part of a sentence: `a list`."""
    if value is None:
        return "null"
    if isinstance(value, Unusable):
        return f"a value that {value.reason}"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kinds, words in (((int, float), "a number"), ((str,), "text"), ((list, tuple), "a list")):
        if isinstance(value, kinds):
            return words
    if isinstance(value, Mapping):
        return "an object"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if name != "bytes" else "bytes"
