from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.errors import InputError
from acorn.evaluate.answers import Answer, answer_figures, normalized, scored_answers


def same(text: str) -> str:
    return text


def figures(*answers: tuple[str, str, bool]) -> tuple[float, float, float]:
    scored = scored_answers([Answer("", *answer) for answer in answers], same)
    found = answer_figures(scored, same)
    return found["exact_match"], found["normalized_match"], found["ended_rate"]


def test_figures_counted_by_hand() -> None:
    answers = (
        ("2026-01-02", "2026-01-02", True),
        ("Paris", " paris\n", True),
        ("no", "yes", True),
        ("a", "a b", False),
    )
    assert figures(*answers) == (1 / 4, 2 / 4, 3 / 4)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("  Two\t words\n", "two words"),
        ("Straße", "strasse"),
        ("ＡＢＣ１２３", "abc123"),
        ("ﬁne\u00a0art", "fine art"),
        ("e\u0301", "\u00e9"),
        ("ΣΑΣ", "σασ"),
    ],
)
def test_what_normalization_forgives(text: str, form: str) -> None:
    assert normalized(text) == form


@pytest.mark.parametrize(("one", "other"), [("1.5", "15"), ("a,b", "a b"), ("the cat", "cat"), ("resume", "résumé")])
def test_what_normalization_keeps(one: str, other: str) -> None:
    assert normalized(one) != normalized(other)


@given(st.text())
def test_normalization_is_idempotent_and_blind_to_white_space(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)
    assert normalized(f"\n {text}\u3000\t") == normalized(text)


@given(st.text(), st.text(), st.booleans())
def test_an_exact_match_is_a_normalized_one_and_both_have_ended(expected: str, text: str, ended: bool) -> None:
    exact, close, rate = figures((expected, text, ended))
    assert exact <= close <= rate


def test_an_answer_that_did_not_end_is_no_match() -> None:
    assert figures(("a", "a", False)) == (0.0, 0.0, 0.0)


def test_the_expected_answer_is_compared_as_the_tokenizer_can_write_it() -> None:
    scored = scored_answers([Answer("q", "Café", "cafe", True), Answer("q", "bar", "bar", True)], _plain)
    found = answer_figures(scored, _plain, answer_loss=0.5)
    assert found["exact_match"] == 1.0
    assert found["notes"] == ["The tokenizer alters 1 expected answer of 2, which is compared as altered."]
    assert (found["answer_loss"], found["task"], found["examples"]) == (0.5, "complete", 2)


def test_a_scored_answer_is_a_flat_record() -> None:
    (scored,) = scored_answers([Answer("q", "Yes", "yes", True)], same)
    assert scored.record == {
        "prompt": "q",
        "expected": "Yes",
        "text": "yes",
        "ended": True,
        "exact": False,
        "normalized": True,
    }


def _plain(text: str) -> str:
    return text.lower().replace("é", "e")


def test_no_answer_is_refused() -> None:
    with pytest.raises(InputError, match="0 examples"):
        answer_figures([], same)
