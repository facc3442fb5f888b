"""What a row to finetune on becomes: the row as it was read, and the examples of each task.

Examples are equal where what they say is equal; where they stand does not count.
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
        values: column -> value. One that cannot be used is an `Unusable`.
        where: the place, as `mails.csv, line 12`.
        typed: numbers and lists are values of their own; else (.csv, .tsv) everything is text.
    """

    values: Mapping[str, Any]
    where: str
    typed: bool = True


@dataclass(frozen=True)
class Unusable:
    """In place of a value that cannot be read. It matters only where a task needs that value."""

    reason: str  # what is said of the column: `is there twice`


@dataclass(frozen=True)
class Refusal:
    """A row that became no example.

    Attributes:
        reason: a sentence.
    """

    where: str
    reason: str


class RowFault(Exception):
    """Why the row at hand becomes no example, as a sentence."""


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
    """A text and what is said of it: one label, several (in order, each once), or a value in the label's own unit."""

    text: str
    label: str | tuple[str, ...] | float
    where: str = field(compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels; none where it has a value."""
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
    """What a value is, within a sentence: `a list`."""
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
