"""Word perplexity, or the reason why it is not given."""

from __future__ import annotations

import math

MAX_WORD_PERPLEXITY = 1e9
"""Perplexity of guessing among a billion words, more than any language has. A larger value only says that the model
cannot predict the text, or that its "words" are whole sentences."""

LONG_WORDS_BYTES = 40
"""Mean number of bytes between white space above which white space is assumed not to separate words: Chinese, Japanese,
Thai and Khmer have more. English has 6; Malayalam, with long words and three bytes per letter, about 30."""


def word_perplexity_of(
    loss: float, n_words: int, n_bytes: int, changed_by: str = ""
) -> tuple[float | None, str | None]:
    """exp(loss per word), and a note that a reader of the figure needs.

    Args:
        loss: sum over the whole text, in nats.
        n_words: number of words of the original text, where each end of line counts as a word; at least 1.
        n_bytes: number of UTF-8 bytes of the original text.
        changed_by: what changed the words before tokenization; empty: nothing.

    Returns:
        the perplexity, or None if the note says why it is not given; the note, or None.
    """
    if changed_by:
        return None, f"not given: {changed_by} changed the words"
    value = exp_or_none(loss / n_words)
    notes = []
    if value is None or value > MAX_WORD_PERPLEXITY:
        value = None
        notes.append(
            f"not given: at {loss / n_words / math.log(2):,.1f} bits per word it is above {MAX_WORD_PERPLEXITY:,.0f}, "
            "more than any language has words. The model cannot predict this text, or its words are not separated "
            "by white space"
        )
    if n_bytes > LONG_WORDS_BYTES * n_words:
        notes.append(
            f"the text has {n_bytes / n_words:,.0f} bytes between spaces on average, so its words are probably not "
            "separated by spaces and word perplexity means little; compare bits per byte"
        )
    return value, "; ".join(notes) or None


def exp_or_none(x: float) -> float | None:
    """exp(x); None if it overflows."""
    try:
        return math.exp(x)
    except OverflowError:
        return None
