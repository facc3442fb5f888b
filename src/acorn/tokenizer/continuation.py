"""Text that goes on after other text, for tokenizers that mark where a text begins."""

from __future__ import annotations

from acorn.errors import InputError
from acorn.tokenizer.tokenizer import Tokenizer

Part = tuple[list[int], list[tuple[int, int]]]

_ANCHORS = ("\n", ".", "0", "a", "\n\n")
"""Encoded before a text, then removed. Few vocabularies have a token that joins a line end with what follows."""


def encode_continuation(tokenizer: Tokenizer, text: str, *, after: str = "", controls: bool = False) -> Part:
    """The ids of `text` as they are within a text, and for each the characters [begin, end) that it stands for.

    Tokenizers made by SentencePiece put a mark of a space before each text. In what goes on after a prompt it would
    be a space that nobody wrote.

    Args:
        after: the text before it. Where a token would reach from there into `text`, both stay apart.
        controls: match control tokens in `text`.

    Raises:
        InputError: the text is not valid Unicode, or its tokens cannot be told from those before it.
    """
    if not tokenizer.marks_beginning or not text:
        return tokenizer.encode_part(text, controls=controls)
    for before in (after, *_ANCHORS) if after else _ANCHORS:
        part = _beyond(tokenizer, before, text, controls)
        if part:
            return part
    raise InputError(
        "The tokenizer joins the beginning of this text with any text before it.",
        where=repr(text[:40]),
        fix="begin the text with a space or a letter",
    )


def _beyond(tokenizer: Tokenizer, before: str, text: str, controls: bool) -> Part | None:
    """What `before` and `text` have beyond `before`; None where a token stands for some of both."""
    begun, _ = tokenizer.encode_part(before, controls=controls)
    ids, places = tokenizer.encode_part(before + text, controls=controls)
    border, length = len(begun), len(before)
    is_border = all(end <= length for _, end in places[:border]) and all(
        first >= length for first, _ in places[border:]
    )
    if ids[:border] != begun or not is_border:
        return None
    return ids[border:], [(first - length, end - length) for first, end in places[border:]]
