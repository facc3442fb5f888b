"""A run's own copy of its examples: what is written is read back, and damage is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.data.example_folder import (
    ExampleFolder,
    from_record,
    kind_of_data,
    to_record,
    verify_examples,
    write_examples,
)
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError, InputError
from acorn.text.example_splits import ExampleCounts, ExampleSplits
from acorn.text.examples import Chat, Completion, Example, Labeled, Message, Tagged, Task

EXAMPLES: dict[Task, Example] = {
    "chat": Chat((Message("user", "Who?\n", False), Message("assistant", "橡树\u2028", True)), "a.jsonl, line 1"),
    "complete": Completion("", "lone \ud800", "a.csv, line 2"),
    "classify": Labeled("text", ("a", "b"), "a.tsv, line 3"),
    "regress": Labeled("text", 1e-300, "x.parquet, row 4"),
    "tag": Tagged(("An", "oak"), ("O", "B-TREE"), "a.conll, line 1"),
}


def splits_of(task: Task, example: Example) -> ExampleSplits:
    splits = ExampleSplits(task, "", {})
    splits.sides = {"train": [example, example], "valid": [example]}
    splits.counts = {"train": ExampleCounts(rows=3, examples=2), "valid": ExampleCounts()}
    return splits


@pytest.mark.parametrize("task", EXAMPLES)
def test_examples_are_read_back_as_they_were(tmp_path: Path, task: Task) -> None:
    write_examples(tmp_path / "data", splits_of(task, EXAMPLES[task]), {"more": 1})
    found = ExampleFolder.open(tmp_path / "data")
    assert (found.task, found.manifest["more"]) == (task, 1)
    assert found.sides == {"train": [EXAMPLES[task]] * 2, "valid": [EXAMPLES[task]]}
    assert found.sides["train"][0].where == EXAMPLES[task].where
    assert from_record(to_record(EXAMPLES[task]), task) == EXAMPLES[task]


def test_one_label_is_not_a_list_of_one() -> None:
    assert from_record(to_record(Labeled("", "a", "")), "classify") == Labeled("", "a", "")


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_examples(folder, splits_of("complete", EXAMPLES["complete"]), {})
    assert verify_examples(folder) == []
    file = folder / "train.jsonl"
    file.write_text(file.read_text() * 2)
    assert "train.jsonl" in verify_examples(folder)[0]
    with pytest.raises(DamageError):
        ExampleFolder.open(folder)


def test_examples_and_shards_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert kind_of_data(folder) is None
    write_examples(folder, splits_of("complete", EXAMPLES["complete"]), {})
    assert kind_of_data(folder) == "examples"
    with pytest.raises(InputError, match="examples to finetune on"):
        TokenShards.open(folder)
    with pytest.raises(InputError, match="not a manifest of examples"):
        ExampleFolder.open(tmp_path)
