"""An example's tokens as text for a terminal, with marks for those that are learned."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.text import Text

from acorn.report.formats import printable
from acorn.tokenizer.chat_format import Encoded
from acorn.tokenizer.tokenizer import Tokenizer

BEGIN, END = "[[", "]]"
"""Around what is learned, where there are no colors."""

LEARNED, READ, CONTROL = "green", "dim", "bold"


def marked_text(tokenizer: Tokenizer, tokens: Encoded, *, colored: bool) -> Text:
    r"""The tokens as text; control tokens by their names, a line end as `\n` and a line end."""
    text = Text()
    for is_learned, group in groupby(_runs(tokenizer, tokens), key=lambda run: run[0]):
        text.append(BEGIN if is_learned and not colored else "")
        for _, is_control, run in group:
            style = f"{LEARNED if is_learned else READ}{f' {CONTROL}' if is_control else ''}"
            text.append(printable(run).replace("\n", "\\n\n"), style)
        text.append(END if is_learned and not colored else "")
    return text


def _runs(tokenizer: Tokenizer, tokens: Encoded) -> Iterator[tuple[bool, bool, str]]:
    """Tokens of one kind in a row: whether they are learned, whether they are control tokens, and their text."""
    kinds = [
        (is_learned, token in tokenizer.control_ids)
        for token, is_learned in zip(tokens.ids, tokens.trained, strict=True)
    ]
    begin, before = 0, ""
    for (is_learned, is_control), group in groupby(kinds):
        end = begin + len(list(group))
        after = tokenizer.decode(tokens.ids[:end], skip_special_tokens=False)
        # Decoded with what stands before, as some tokenizers put spaces between tokens; a character that is split
        # between two kinds makes the text before another one.
        alone = tokenizer.decode(tokens.ids[begin:end], skip_special_tokens=False)
        yield is_learned, is_control, after[len(before) :] if after.startswith(before) else alone
        begin, before = end, after
