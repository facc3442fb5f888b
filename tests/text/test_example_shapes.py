from __future__ import annotations

from typing import Any

import pytest

from acorn.config import FinetuneConfig
from acorn.errors import InputError, UsageError
from acorn.text.example_shapes import task_of, to_example, to_input, unread_columns
from acorn.text.examples import Completion, Example, Labeled, Record, Refusal, Tagged, Task

WHERE = "a.jsonl, line 1"
NOTHING = FinetuneConfig()


def example(task: Task, *, typed: bool = True, finetune: FinetuneConfig = NOTHING, **values: Any) -> Example | Refusal:
    return to_example(Record(values, WHERE, typed), task, finetune)


def auto(*rows: dict[str, Any], typed: bool = True, **fields: str) -> str:
    records = [Record(values, f"line {number}", typed) for number, values in enumerate(rows, start=1)]
    return task_of(records, FinetuneConfig(**fields))[0]


# --- rows -> examples


def test_each_task_reads_its_columns() -> None:
    assert example("complete", prompt="a ", completion=" b") == Completion("a ", " b", WHERE)
    assert example("complete", prompt="", completion="b") == Completion("", "b", WHERE)
    assert example("classify", text="a", label=1) == Labeled("a", "1", WHERE)
    assert example("classify", text="a", label=["y", "x"]) == Labeled("a", ("x", "y"), WHERE)
    assert example("classify", text="a", label=[]) == Labeled("a", (), WHERE)
    assert example("regress", text="a", label=1) == Labeled("a", 1.0, WHERE)
    assert example("tag", tokens=["York", "."], tags=["B", "O"]) == Tagged(("York", "."), ("B", "O"), WHERE)
    assert example("tag", typed=False, tokens='["a"]', tags="[1]") == Tagged(("a",), ("1",), WHERE)


def test_columns_can_have_other_names() -> None:
    fields = FinetuneConfig(text_field="body", label_field="kind", prompt_field="q", completion_field="a")
    assert example("classify", finetune=fields, body="a", kind="b", text=3) == Labeled("a", "b", WHERE)
    assert example("tag", finetune=fields, body=["a"], kind=["b"]) == Tagged(("a",), ("b",), WHERE)
    assert example("complete", finetune=fields, q="a", a="b") == Completion("a", "b", WHERE)


@pytest.mark.parametrize(
    ("task", "values", "words"),
    [
        ("classify", {"text": "a"}, "There is no column 'label'; the columns are 'text'."),
        ("classify", {"label": "a"}, "There is no column 'text'; the columns are 'label'."),
        ("classify", {}, "There is no column 'text'; there are no columns."),
        ("classify", {"text": "", "label": "a"}, "The column 'text' is empty."),
        ("classify", {"text": " \n", "label": "a"}, "The column 'text' is empty."),
        ("classify", {"text": None, "label": "a"}, "The column 'text' is null, not text."),
        ("classify", {"text": 3, "label": "a"}, "The column 'text' is a number, not text."),
        ("classify", {"text": "a", "label": None}, "The label is null, not text or an integer."),
        ("regress", {"text": "a", "label": "high"}, "The label is text, not a number."),
        ("complete", {"prompt": "a", "completion": " "}, "The answer (column 'completion') is empty."),
        ("complete", {"prompt": "a", "completion": None}, "The answer (column 'completion') is null, not text."),
        ("complete", {"prompt": None, "completion": "b"}, "The column 'prompt' is null, not text."),
        ("tag", {"tokens": [], "tags": []}, "The column 'tokens' holds no token."),
        ("tag", {"tokens": ["a", "b"], "tags": ["O"]}, "The row has 2 tokens, but 1 tag."),
        ("tag", {"tokens": ["a", " "], "tags": ["O", "O"]}, "Token 2 is empty."),
        ("tag", {"tokens": ["a", None], "tags": ["O", "O"]}, "Token 2 is null, not text."),
        ("tag", {"tokens": ["a"], "tags": [None]}, "The tag 1 is null, not text or an integer."),
        ("tag", {"tokens": ["a"], "tags": [["O"]]}, "Tag 1 is a list, not text."),
        ("tag", {"tokens": "a b", "tags": ["O"]}, "The column 'tokens' is text, not a list."),
        ("chat", {"messages": []}, "The column 'messages' holds no message."),
    ],
)
def test_a_row_that_becomes_no_example_is_refused_with_its_place(
    task: Task, values: dict[str, Any], words: str
) -> None:
    assert example(task, **values) == Refusal(WHERE, words)


def test_an_input_needs_no_label() -> None:
    assert to_input(Record({"text": "a"}, WHERE), "classify", NOTHING) == "a"
    assert to_input(Record({"tokens": ["a", "b"]}, WHERE), "tag", NOTHING) == ("a", "b")
    assert to_input(Record({"text": " a  b "}, WHERE), "tag", NOTHING) == ("a", "b")
    assert to_input(Record({"tokens": '["a", "b"]'}, WHERE, typed=False), "tag", NOTHING) == ("a", "b")
    assert to_input(Record({"text": "[a] b"}, WHERE, typed=False), "tag", NOTHING) == ("[a]", "b")
    named = FinetuneConfig(text_field="body")
    assert to_input(Record({"body": "a b"}, WHERE, typed=False), "tag", named) == ("a", "b")
    assert isinstance(to_input(Record({"text": "a b"}, WHERE), "tag", named), Refusal)
    assert to_input(Record({"text": " "}, WHERE), "tag", NOTHING) == Refusal(WHERE, "The column 'text' is empty.")
    assert isinstance(to_input(Record({"tokens": ["a b"], "text": "a b"}, WHERE), "tag", NOTHING), Refusal)
    assert to_input(Record({"prompt": ""}, WHERE), "complete", NOTHING) == ""
    assert to_input(Record({"text": ""}, WHERE), "classify", NOTHING) == Refusal(WHERE, "The column 'text' is empty.")


def test_equal_examples_are_equal_wherever_they_stand() -> None:
    one, two = (to_example(Record({"text": "a", "label": "b"}, where), "classify", NOTHING) for where in ("x", "y"))
    assert one == two
    assert len({one, two}) == 1


def test_columns_that_are_not_read_are_named() -> None:
    chat = {"messages": [{"role": "user", "content": "a", "name": "b"}], "id": 0, "tools": None, "prompt": "c"}
    assert unread_columns(Record(chat, WHERE), "chat", NOTHING) == ["id", "prompt", "messages[].name"]
    labeled = {"text": "a", "label": "b", "date": "c"}
    assert unread_columns(Record(labeled, WHERE), "classify", NOTHING) == ["date"]


# --- which task


CHAT = {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("rows", "task"),
    [
        ([CHAT], "chat"),
        ([{"conversations": []}], "chat"),
        ([{"instruction": "a", "output": "b"}, CHAT], "chat"),
        ([{"prompt": [{"role": "user", "content": "a"}], "completion": [], "id": 1}], "chat"),
        ([{"prompt": "a", "completion": "b", "label": True}], "complete"),
        ([{"text": "a", "label": 1}], "classify"),
        ([{"text": "a", "label": True}], "classify"),
        ([{"text": "a", "label": ["b"]}], "classify"),
        ([{"text": "a", "label": "4.5"}], "classify"),
        ([{"text": "a", "label": None}, {"text": "a", "label": 1}], "classify"),
        ([{"text": "a", "label": 1}, {"text": "a", "label": 1.0}], "regress"),
        ([{"text": "a", "label": 4}, {"text": "a", "label": None}, {"text": "b", "label": 4.5}], "regress"),
        ([{"tokens": ["a"], "tags": ["O"]}], "tag"),
        ([{"other": 1}, {"text": "a", "label": 1}], "classify"),
    ],
)
def test_the_columns_tell_the_task(rows: list[dict[str, Any]], task: str) -> None:
    assert auto(*rows) == task


def test_in_a_csv_the_looks_of_labels_tell_the_task() -> None:
    assert auto({"text": "a", "label": "4"}, {"text": "b", "label": "4.5"}, typed=False) == "regress"
    assert auto({"text": "a", "label": "4"}, {"text": "b", "label": "5"}, typed=False) == "classify"
    assert auto({"text": "a", "label": ""}, {"text": "b", "label": "4.0"}, typed=False) == "regress"


def test_named_columns_tell_the_task_by_their_values() -> None:
    fields = {"text_field": "body", "label_field": "kind"}
    assert auto({"body": "a", "kind": "b"}, **fields) == "classify"
    assert auto({"body": ["a"], "kind": ["b"]}, **fields) == "tag"


def test_the_reason_names_columns_and_the_way_to_the_other_task() -> None:
    task, reason = task_of([Record({"text": "a", "label": 1.5}, WHERE)], NOTHING)
    assert task == "regress"
    assert reason == (
        "the columns 'text' and 'label'; labels are numbers with a decimal point "
        "(--task classify makes classes of them)"
    )


@pytest.mark.parametrize(
    ("rows", "first", "second"),
    [
        ([{"text": "a", "label": 1, **CHAT}], "chat", "classify"),
        ([{"prompt": "a", "completion": "b"}, {"text": "a", "label": 1}], "complete", "classify"),
        ([{"tokens": ["a"], "tags": ["b"], "prompt": "a", "completion": "b"}], "complete", "tag"),
        ([{"text": "a", "label": 1.5}, {"text": "a", "label": "high"}], "regress", "classify"),
        ([{"text": "a", "label": 1.5}, {"text": "a", "label": ["high"]}], "regress", "classify"),
    ],
)
def test_where_two_tasks_fit_both_are_named(rows: list[dict[str, Any]], first: str, second: str) -> None:
    with pytest.raises(UsageError) as error:
        auto(*rows)
    assert error.value.fix == f"choose one: --task {first} or --task {second}"
    assert f"line {len(rows)}" in error.value.what


def test_where_no_task_fits_the_columns_are_named() -> None:
    with pytest.raises(InputError, match="the columns are 'body', 'kind'") as error:
        auto({"body": "a", "kind": "b"})
    assert error.value.where == "line 1"
    assert "finetune.label_field" in error.value.fix
    with pytest.raises(InputError, match="pairs of preferences, which acorn does not train on"):
        auto({"prompt": "a", "chosen": "b", "rejected": "c"})
    with pytest.raises(InputError, match="There is no row"):
        auto()
