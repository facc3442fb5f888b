from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.text.examples import RowFault, Unusable
from acorn.text.label_values import as_label, as_value, label_kind, shown


@pytest.mark.parametrize(
    ("value", "typed", "kind"),
    [
        ("spam", True, "word"),
        ("4.5", True, "word"),  # JSON says that it is text
        ("4.5", False, "decimal"),
        (" -.5 ", False, "decimal"),
        ("1e3", False, "decimal"),
        ("1_000.5", False, "word"),
        ("3,5", False, "word"),
        ("\u0661.5", False, "word"),  # an Arabic digit
        ("7", False, "integer"),
        ("-7", False, "integer"),
        (7, True, "integer"),
        (7.0, True, "decimal"),
        (Decimal("7.0"), True, "decimal"),
        (True, True, "word"),
        (math.nan, True, "missing"),
        (None, True, "missing"),
        ("", False, "missing"),
        (" \t", True, "missing"),
        (Unusable("is there twice"), True, "missing"),
        (["a"], True, "list"),
        ('["a"]', False, "list"),
        ('["a"]', True, "word"),
        ("[UNK]", False, "word"),
    ],
)
def test_what_a_label_looks_like(value: object, typed: bool, kind: str) -> None:
    assert label_kind(value, typed) == kind


def test_one_label_has_one_spelling() -> None:
    assert as_label(1, True) == as_label("1", True) == as_label("1", False) == as_label(" 1\n", False) == "1"
    assert as_label(2**70, True) == "1180591620717411303424"
    assert as_label(True, True) == "true"
    assert as_label(1.0, True) == as_label("1.0", False) == "1.0"
    assert as_label("zero width\u200bjoiner", True) == "zero width\u200bjoiner"


def test_a_list_of_labels_has_each_once_and_in_order() -> None:
    assert as_label(["b", "a", "b", 3], True) == ("3", "a", "b")
    assert as_label('["b", "a"]', False) == ("a", "b")
    assert as_label([], True) == as_label("[]", False) == ()
    assert as_label("[UNK", False) == "[UNK"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "The label is null, not text or an integer."),
        ("", "The label is empty."),
        (" \u3000", "The label is empty."),
        (["a", ""], "The label is empty."),
        (math.nan, "The label is NaN."),
        (-math.inf, "The label is infinite."),
        ({"a": 1}, "The label is an object, not text"),
        (b"a", "The label is bytes, not text"),
        ([["a"]], "The label is a list, not text"),
        ("a\nb", r"'a\nb' holds the control character U\+000A"),
        ("a\x00b", r"holds the control character U\+0000"),
        ("a\u2028b", r"holds the control character U\+2028"),
        (Unusable("is there twice"), "The label is there twice."),
    ],
)
def test_what_is_no_label_is_refused(value: object, words: str) -> None:
    with pytest.raises(RowFault, match=words.replace("\\n", "\\\\n")):
        as_label(value, True)


def test_a_list_that_python_wrote_is_not_taken_for_a_label() -> None:
    with pytest.raises(RowFault, match="looks like a list, but is not JSON"):
        as_label("['a', 'b']", False)


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_is_the_number_that_was_written(value: float) -> None:
    assert as_value(value, True) == as_value(repr(value), False) == as_value(f" {value!r} ", False) == value


def test_a_value_may_be_an_integer() -> None:
    assert as_value(3, True) == as_value("3", False) == as_value(Decimal(3), True) == 3.0


@pytest.mark.parametrize(
    ("value", "typed", "words"),
    [
        ("3.5", True, "is text, not a number"),
        ("3,5", False, "'3,5' is not a number"),
        ("1_000", False, "is not a number"),
        ("nan", False, "is not a number"),
        ("", False, "is empty"),
        ("1e999", False, "is infinite"),
        (10**400, True, "is infinite"),
        (math.inf, True, "is infinite"),
        (math.nan, True, "is NaN"),
        (True, True, "is true, not a number"),
        (None, True, "is null, not a number"),
        ([1.5], True, "is a list, not a number"),
    ],
)
def test_what_is_no_value_is_refused(value: object, typed: bool, words: str) -> None:
    with pytest.raises(RowFault, match=words):
        as_value(value, typed)


def test_a_long_label_is_shown_in_part() -> None:
    assert len(shown("x" * 1_000)) < 70
    assert shown("spam") == "'spam'"
