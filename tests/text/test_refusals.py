from __future__ import annotations

from acorn.text.examples import Refusal
from acorn.text.refusals import no_example, reasons_of, rows_refused

REFUSED = [Refusal("line 1", "It is red."), Refusal("line 2", "It is blue."), Refusal("line 3", "It is blue.")]


def test_each_reason_stands_once_with_its_first_place() -> None:
    assert reasons_of(REFUSED, 2) == ["line 2 and 1 other row: It is blue.", "line 1: It is red."]
    assert reasons_of(REFUSED, 1) == ["line 2 and 1 other row: It is blue.", "and 1 row for other reasons"]


def test_one_refusal_is_the_error_itself_and_several_are_listed() -> None:
    one = rows_refused("train: a.csv", REFUSED[:1], 9)
    assert (one.what, one.where) == ("It is red.", "line 1")
    several = rows_refused("train: a.csv", REFUSED, 1_000)
    assert several.what.startswith("3 of 1,000 rows cannot be used:\n  - line 2 and 1 other row: ")
    assert several.where == "train: a.csv"


def test_where_nothing_is_left_the_reasons_are_counted() -> None:
    told = "There is no example: all 3 rows were refused (It is blue: 2 rows; It is red: 1 row)."
    assert no_example("train", REFUSED).what == told
    one = no_example("train", REFUSED[:1]).what
    assert one == "There is no example: the only row was refused (It is red: 1 row)."
    assert no_example("train", []).what == "There is no example."
