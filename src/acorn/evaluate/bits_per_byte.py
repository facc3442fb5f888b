"""Bits per byte, or the reason why they are not given."""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_UNKNOWN_RATE = 0.01
"""Largest share of unknown tokens for which bits per byte are given. An unknown token is easy to predict, and the bytes
of the text that it replaces are counted: in a language that the vocabulary lacks, a model that predicts only unknown
tokens would have an excellent score."""

UNPREDICTED = "the model predicts that there is unknown text, not which text"


def bits_per_byte_of(
    loss: float, n_bytes: int, unknown_rate: float | None, notes: Sequence[str] = ()
) -> tuple[float | None, str | None]:
    """Bits of loss per byte of original text, and a note that a reader of the figure needs.

    Args:
        loss: sum over the whole text, in nats.
        n_bytes: number of UTF-8 bytes of the original text; at least 1.
        unknown_rate: share of unknown tokens; None: unknown.
        notes: further notes.

    Returns:
        the figure, or None if the note says why it is not given; the note, or None.
    """
    if not unknown_rate:
        return loss / math.log(2) / n_bytes, "; ".join(notes) or None
    said = f"{100 * unknown_rate:.3g} % of the tokens are unknown tokens, for text that the vocabulary cannot spell"
    if unknown_rate > MAX_UNKNOWN_RATE:
        return None, f"not given: {said}, and at most {100 * MAX_UNKNOWN_RATE:g} % are accepted: {UNPREDICTED}"
    return loss / math.log(2) / n_bytes, "; ".join([*notes, f"{said}: {UNPREDICTED}"])
