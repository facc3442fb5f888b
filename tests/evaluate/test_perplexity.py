"""Word perplexities against the plain formula, and the notes that stand beside them."""

from __future__ import annotations

import math

import pytest

from acorn.evaluate.perplexity import MAX_WORD_PERPLEXITY, exp_or_none, word_perplexity_of


def test_an_ordinary_figure_has_no_note() -> None:
    """100 words of 6 bytes, each with a perplexity of 250."""
    value, note = word_perplexity_of(100 * math.log(250), 100, 600)
    assert value == pytest.approx(250)
    assert note is None


def test_changed_words_have_no_figure() -> None:
    assert word_perplexity_of(10.0, 10, 60, "cleaning") == (None, "not given: cleaning changed the words")


@pytest.mark.parametrize("bits", [30.0, 335.0, 5000.0])
def test_a_meaningless_perplexity_is_omitted_with_a_note(bits: float) -> None:
    """2^30 is above a billion; 2^335 has 101 digits; 2^5000 overflows a float."""
    value, note = word_perplexity_of(7 * bits * math.log(2), 7, 42)
    assert value is None
    assert note is not None
    assert note.startswith(f"not given: at {bits:,.1f} bits per word it is above 1,000,000,000")


def test_the_largest_perplexity_that_is_given() -> None:
    assert word_perplexity_of(math.log(MAX_WORD_PERPLEXITY) - 1e-9, 1, 6)[0] is not None


@pytest.mark.parametrize(
    ("text", "is_noted"),
    [
        ("The old oak stood where the paths met.\n", False),
        ("അവൻ പുസ്തകങ്ങൾ വായിച്ചുകൊണ്ടിരിക്കുകയായിരുന്നു ഇന്നലെ\n", False),
        ("Donaudampfschifffahrtsgesellschaft fährt\n", False),
        ("古い樫の木は道の出会うところに立っていて、誰もその理由を知らなかった。\n", True),
        ("老橡树立在几条小路相会的地方,没有人知道为什么,也没有人去问。\n", True),
        ("ต้นโอ๊กเก่าแก่ยืนอยู่ตรงที่ทางเดินมาบรรจบกันโดยไม่มีใครรู้ว่าทำไม\n", True),
    ],
)
def test_text_without_spaces_between_words_is_noted(text: str, is_noted: bool) -> None:
    n_words = len(text.split()) + text.count("\n")
    value, note = word_perplexity_of(n_words * math.log(50), n_words, len(text.encode()))
    assert value == pytest.approx(50)
    assert (note is not None and "not separated by spaces" in note) == is_noted


def test_exp_that_overflows_is_none() -> None:
    assert exp_or_none(2.0) == math.exp(2.0)
    assert exp_or_none(1000.0) is None
