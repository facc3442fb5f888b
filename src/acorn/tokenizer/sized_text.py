"""Texts that know the size of their original, in which a byte that could not be decoded is one byte.

That size cannot be computed from the text: U+FFFD, which replaces such a byte, takes three bytes in UTF-8, and cleaning
removes characters.
"""

from __future__ import annotations

from typing import Protocol


class SizedText(Protocol):
    """A text that knows the size of its original, such as a document of `acorn.text`."""

    @property
    def text(self) -> str: ...

    @property
    def n_bytes(self) -> int: ...


def text_and_bytes(item: str | SizedText) -> tuple[str, int]:
    """The text, and the number of bytes of its original. A plain string is its own original."""
    if isinstance(item, str):
        return item, len(item.encode("utf-8", "surrogatepass"))
    return item.text, item.n_bytes
