"""Bits per byte are given where the vocabulary can spell the text, and only there."""

from __future__ import annotations

import math

import pytest

from acorn.evaluate.bits_per_byte import bits_per_byte_of


@pytest.mark.parametrize("rate", [None, 0.0])
def test_without_unknown_tokens_there_is_no_note(rate: float | None) -> None:
    assert bits_per_byte_of(10 * math.log(2), 5, rate) == (pytest.approx(2.0), None)
    assert bits_per_byte_of(10 * math.log(2), 5, rate, ["one", "two"]) == (pytest.approx(2.0), "one; two")


@pytest.mark.parametrize(("rate", "said"), [(0.00123, "0.123 %"), (0.01, "1 %")])
def test_a_small_share_of_unknown_tokens_is_noted(rate: float, said: str) -> None:
    value, note = bits_per_byte_of(10 * math.log(2), 5, rate, ["one"])
    assert value == pytest.approx(2.0)
    assert note is not None
    assert note.startswith(f"one; {said} of the tokens are unknown tokens")


@pytest.mark.parametrize(("rate", "said"), [(0.0101, "1.01 %"), (0.72, "72 %"), (1.0, "100 %")])
def test_above_one_percent_of_unknown_tokens_there_is_no_figure(rate: float, said: str) -> None:
    value, note = bits_per_byte_of(10 * math.log(2), 5, rate)
    assert value is None
    assert note is not None
    assert note.startswith(f"not given: {said} of the tokens are unknown tokens")
    assert "at most 1 %" in note
