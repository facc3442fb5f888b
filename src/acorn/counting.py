"""A number with its noun."""

from __future__ import annotations


def counted(number: float, noun: str, plural: str = "") -> str:
    """`1 document`, `2 documents`, `1,234 documents`, `0.5 minutes`.

    Args:
        number: a whole number is written in full, any other with six digits at most.
        plural: for nouns whose plural is not the noun with an s.
    """
    shown = f"{number:,.0f}" if number == int(number) else f"{number:,g}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"
