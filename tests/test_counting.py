"""Numbers with nouns."""

from __future__ import annotations

import pytest

from acorn.counting import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (1, ("minute",), "1 minute"),
        (1.0, ("minute",), "1 minute"),
        (0, ("minute",), "0 minutes"),
        (0.5, ("minute",), "0.5 minutes"),
        (1234, ("document",), "1,234 documents"),
        (12_345_678, ("document",), "12,345,678 documents"),
        (2, ("pass", "passes"), "2 passes"),
        (1, ("pass", "passes"), "1 pass"),
    ],
)
def test_one_is_singular(number: float, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said
