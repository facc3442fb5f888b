from __future__ import annotations

import datetime

import pytest

from acorn.text.examples import Labeled, Unusable, kind_of


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (Unusable("is there twice"), "a value that is there twice"),
        (True, "true"),
        (1, "a number"),
        (1.5, "a number"),
        ("", "text"),
        ((), "a list"),
        ({}, "an object"),
        (b"", "bytes"),
        (datetime.date(2026, 1, 1), "a date"),
    ],
)
def test_kinds_have_plain_names(value: object, words: str) -> None:
    assert kind_of(value) == words


def test_labels_of_one_several_and_none() -> None:
    assert Labeled("a", "x", "").labels == ("x",)
    assert Labeled("a", ("x", "y"), "").labels == ("x", "y")
    assert Labeled("a", 1.5, "").labels == ()
