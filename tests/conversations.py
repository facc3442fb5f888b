"""Conversations, drawn at random or written down, for the tests of chat formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st


@dataclass(frozen=True)
class Message:
    role: str
    content: str
    trained: bool = True


def conversation(*contents: str, system: str = "") -> list[Message]:
    """The contents by turns of user and assistant."""
    roles = ("user", "assistant")
    turns = [Message(roles[number % 2], content) for number, content in enumerate(contents)]
    return [Message("system", system), *turns] if system else turns


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """As other libraries take them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def pieces_of(controls: Sequence[str]) -> st.SearchStrategy[str]:
    """Text with the names of control tokens in it, whole and cut off."""
    parts = [*controls, *(name[:-1] for name in controls), *(name[1:] for name in controls), "<|", "|>", " ", "\n"]
    return st.lists(st.sampled_from(parts) | st.text(max_size=6), max_size=6).map("".join)


texts = st.text(max_size=30) | st.sampled_from(["", " ", "\n\nHi\n", "  two  spaces ", "Việt 橡树 🙂", "the oak's"])


def conversations(contents: st.SearchStrategy[str] = texts) -> st.SearchStrategy[list[Message]]:
    """A system message or none, then user and assistant by turns, beginning with the user."""
    return st.builds(
        lambda system, turns: conversation(*turns, system=system),
        st.just("") | contents,
        st.lists(contents, min_size=1, max_size=6),
    )
