"""Bits per byte, where they are a figure of the whole text; else the reason why not."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_UNKNOWN_RATE = 0.01
"""Share of tokens that stand for text which the vocabulary cannot spell, up to which bits per byte are given. Such a
token is easy to predict whatever it stands for, and its text counts in the bytes: in a language that the vocabulary
cannot spell, a model that predicts nothing but unknown tokens would seem excellent."""

UNPREDICTED = "the model predicts that there is unknown text, not which text"


def bits_per_byte_of(
    loss: float, n_bytes: int, unknown_rate: float | None, notes: Sequence[str] = ()
) -> tuple[float | None, str | None]:
    """Bits of loss per byte of original text, and a note on what a reader has to know about the figure.

    Args:
        loss: of the whole text, in nats.
        n_bytes: UTF-8 bytes of the original text; at least 1.
        unknown_rate: share of the tokens that stand for text the vocabulary cannot spell; None: not known.
        notes: what else there is to say.

    Returns:
        the figure, None where the note says why it is not given; the note, None where there is nothing to say.
    """
    if not unknown_rate:
        return loss / math.log(2) / n_bytes, "; ".join(notes) or None
    said = f"{100 * unknown_rate:.3g} % of the tokens are unknown tokens, for text that the vocabulary cannot spell"
    if unknown_rate > MAX_UNKNOWN_RATE:
        return None, f"not given: {said}, and at most {100 * MAX_UNKNOWN_RATE:g} % are accepted: {UNPREDICTED}"
    return loss / math.log(2) / n_bytes, "; ".join([*notes, f"{said}: {UNPREDICTED}"])
