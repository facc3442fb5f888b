"""The report's sections on a finetuned run."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.errors import DamageError
from acorn.report.finetuned_section import examples_table, finetuned_section, read_predictions


def test_the_surest_mistakes_come_first() -> None:
    rows = [
        {"text": text, "label": "a", "predicted": guess, "probabilities": {"a": 1 - sure, "b": sure}}
        for text, guess, sure in (("right", "a", 0.1), ("unsure", "b", 0.6), ("sure", "b", 0.9))
    ]
    page = finetuned_section({"valid": {"task": "classify", "examples": 3, "accuracy": 1 / 3}}, rows)
    assert page.index(">sure<") < page.index(">unsure<")
    assert ">right<" not in page
    assert "33.3 %" in page


def test_answers_stand_beside_the_expected_ones() -> None:
    answer = {"prompt": "q", "expected": "x", "text": "y", "ended": True, "exact": False, "normalized": False}
    assert "Expected" in finetuned_section({"valid": {"examples": 1, "exact_match": 0.0}}, [answer])


def test_counts_of_a_side_are_those_of_the_manifest() -> None:
    table = examples_table({"splits": {"train": {"examples": 7, "rows": 9, "refused": 2}, "valid": {"examples": 1}}})
    assert "Rows that became no example" in table
    assert "Dropped" not in table
    assert "not found" in examples_table({})


def test_predictions_that_are_no_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(DamageError, match="Line 2"):
        read_predictions(path)
