from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.config import DataConfig, FinetuneConfig
from acorn.errors import AcornError, InputError, UsageError
from acorn.progress import QUIET
from acorn.text.example_splits import ExampleSplits
from acorn.text.examples import Completion, Example, Labeled

Write = Callable[[str, bytes | str], Path]
MAILS = [(f"mail {number}", "spam" if number % 3 else "ham") for number in range(60)]


def table(rows: Iterable[Iterable[object]], header: tuple[str, ...] = ("text", "label")) -> str:
    content = io.StringIO(newline="")
    csv.writer(content).writerows([header, *rows])
    return content.getvalue()


def lines(objects: Iterable[object]) -> str:
    return "".join(json.dumps(one) + "\n" for one in objects)


def opened(
    source: Path | str, progress: Any = QUIET, finetune: dict[str, Any] | None = None, **data: Any
) -> ExampleSplits:
    config = DataConfig(source=(str(source),), **{key: str(v) if isinstance(v, Path) else v for key, v in data.items()})
    return ExampleSplits.open(config, FinetuneConfig(**(finetune or {})), progress)


def pairs(examples: Iterable[Example]) -> list[tuple[str, Any]]:
    return [(example.text, example.label) for example in examples if isinstance(example, Labeled)]


# --- the automatic split


def test_labeled_rows_of_a_csv(write: Write, listener: Any) -> None:
    path = write("mails.csv", table((f"{text}, of a day", label) for text, label in MAILS))
    splits = opened(path, listener)
    assert splits.task == "classify"
    assert splits.labels == ("ham", "spam")
    assert splits.automatic
    train, valid = pairs(splits.sides["train"]), pairs(splits.sides["valid"])
    assert sorted(train + valid) == sorted((f"{text}, of a day", label) for text, label in MAILS)
    assert {label for _, label in valid} == {"ham", "spam"}
    assert splits.sides["train"][0].where == f"{path}, line 2"
    assert listener.notes == ["The task is classify: the columns 'text' and 'label'; labels are text."]
    assert splits.counts["train"].rows == 60
    assert splits.counts["train"].examples == len(train)
    assert splits.counts["valid"].examples == len(valid)
    assert splits.overlap == {"valid": 0.0}
    assert [part.name for part in splits.parts["train"]] == [str(path)]


def test_the_form_of_the_rows_does_not_count(write: Write, tmp_path: Path) -> None:
    objects = [{"text": text, "label": label} for text, label in MAILS]
    pq.write_table(pa.Table.from_pylist(objects), tmp_path / "a.parquet")
    forms = [
        write("a.csv", table(MAILS)),
        write("a.tsv", "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in MAILS)),
        write("a.jsonl", lines(objects)),
        write("a.json", json.dumps(objects)),
        tmp_path / "a.parquet",
    ]
    first, *others = (opened(path).sides for path in forms)
    for other in others:
        assert other == first  # places do not count


@settings(max_examples=20)
@given(more=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from(["spam", "ham"]))))
def test_more_rows_move_no_row_whose_label_has_both_sides(
    tmp_path_factory: pytest.TempPathFactory, more: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    (folder / "m.csv").write_text(table(MAILS), newline="")
    before = opened(folder, valid_fraction=0.3)
    shown = [pair for pair in more if pair[0].strip()]
    (folder / "a.csv").write_bytes(table(shown).encode())
    after = opened(folder, valid_fraction=0.3)
    for side in ("train", "valid"):
        assert set(pairs(before.sides[side])) <= set(pairs(after.sides[side]))


def test_a_label_of_two_rows_is_on_both_sides_and_one_of_one_in_training(write: Write, listener: Any) -> None:
    rows = [*MAILS, ("rare 1", "rare"), ("rare 2", "rare"), ("alone", "single")]
    splits = opened(write("a.csv", table(rows)), listener, valid_fraction=1e-9)
    sides = {side: [label for _, label in pairs(splits.sides[side])] for side in ("train", "valid")}
    assert set(sides["train"]) == {"ham", "rare", "single", "spam"}
    assert sorted(sides["valid"]) == ["ham", "rare", "spam"]
    assert listener.notes[-1] == "valid has no example of 1 label: 'single'."


def test_all_answers_to_one_prompt_are_on_one_side(write: Write) -> None:
    rows = [{"prompt": f"prompt {n % 20}", "completion": f"answer {n}"} for n in range(100)]
    splits = opened(write("a.jsonl", lines(rows)), valid_fraction=0.3)
    prompts = {side: {e.prompt for e in splits.sides[side] if isinstance(e, Completion)} for side in splits.sides}
    assert not prompts["train"] & prompts["valid"]
    assert len(splits.sides["train"]) + len(splits.sides["valid"]) == 100


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_rows_have_both_sides(write: Write, n: int) -> None:
    rows = [{"prompt": f"prompt {number}", "completion": "x"} for number in range(n)]
    splits = opened(write("a.jsonl", lines(rows)), valid_fraction=1e-9)
    assert {side: len(examples) for side, examples in splits.sides.items()} == {"train": n - 1, "valid": 1}


def test_rows_of_one_input_cannot_be_split(write: Write) -> None:
    path = write("a.jsonl", lines({"prompt": "Sing!", "completion": f"la {n}"} for n in range(9)))
    with pytest.raises(
        InputError,
        match=r"too few examples to hold out .* validation: 9 examples for training, 0 examples for validation",
    ):
        opened(path)
    assert len(opened(path, valid_source=path).sides["valid"]) == 9


# --- named sides


def test_sides_can_be_named(write: Write) -> None:
    train, valid, test = (
        write(f"{side}.csv", table((f"{side} {text}", label) for text, label in MAILS)) for side in ("a", "b", "c")
    )
    splits = opened(train, valid_source=valid, test_source=test)
    assert not splits.automatic
    assert {side: len(examples) for side, examples in splits.sides.items()} == {"train": 60, "valid": 60, "test": 60}
    assert splits.overlap == {"valid": 0.0, "test": 0.0}
    with_share = opened(train, test_source=test)
    assert list(with_share.sides) == ["train", "valid", "test"]
    assert pairs(with_share.sides["test"]) == pairs(splits.sides["test"])


def test_a_dataset_brings_its_own_sides(tmp_path: Path) -> None:
    for side in ("train", "validation", "test"):
        rows = [{"text": f"{side} {text}", "label": label} for text, label in MAILS]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{side}.parquet")
    splits = opened(f"hf:{tmp_path}")
    assert list(splits.sides) == ["train", "valid", "test"]
    assert splits.sides["valid"][0] == Labeled("validation mail 0", "ham", "")


@pytest.mark.parametrize("policy", ["warn", "drop", "fail"])
def test_overlap_of_inputs(write: Write, listener: Any, policy: str) -> None:
    """By the input, whatever its label is."""
    train = write("a.csv", table(MAILS))
    valid = write("b.csv", table([("mail 0", "ham"), ("mail 1", "ham"), ("new", "spam"), ("new", "spam")]))
    told = "2 of 3 distinct valid inputs (66.67%) are also inputs of training"
    if policy == "fail":
        with pytest.raises(InputError, match="2 of 3 distinct valid inputs"):
            opened(train, listener, valid_source=valid, overlap=policy)
        return
    splits = opened(train, listener, valid_source=valid, overlap=policy)
    dropped = ", and were dropped from training" if policy == "drop" else ""
    assert f"{told}{dropped}." in listener.notes
    assert len(splits.sides["train"]) == splits.counts["train"].examples == (58 if dropped else 60)
    assert splits.counts["train"].overlap == (2 if dropped else 0)
    assert len(splits.sides["valid"]) == 4  # held-out rows are always scored whole
    assert splits.overlap == {"valid": 2 / 3}


def test_training_that_is_all_held_out_is_refused(write: Write) -> None:
    path = write("a.csv", table(MAILS))
    with pytest.raises(InputError, match=r"60 of 60 distinct valid inputs .* without them training has no") as error:
        opened(path, valid_source=path, overlap="drop")
    assert error.value.where == 'data.overlap = "drop"'
    half = write("b.csv", table(MAILS[:6]))  # validation is split off, and the test rows take the rest of training
    with pytest.raises(InputError, match="without them training has no example") as error:
        opened(half, test_source=half, overlap="drop")
    assert "valid_fraction" not in str(error.value)


# --- repeats


def test_repeats_leave_training_before_the_split(write: Write, listener: Any) -> None:
    once, often = write("once.csv", table(MAILS)), write("often.csv", table([*MAILS, *MAILS[:7]]))
    splits = opened(often, listener)
    assert splits.sides == opened(once).sides
    assert splits.counts["train"].repeats == 7
    assert (
        "train: 7 exact repeats of 67 rows were dropped before the split (data.dedup=false keeps them)."
        in listener.notes
    )
    kept = opened(often, dedup=False)
    assert len(kept.sides["train"]) + len(kept.sides["valid"]) == 67


def test_named_sides_keep_their_repeats(write: Write) -> None:
    train, valid = write("a.csv", table(MAILS * 2)), write("b.csv", table([("x", "ham"), ("x", "ham")]))
    splits = opened(train, valid_source=valid)
    assert {side: len(examples) for side, examples in splits.sides.items()} == {"train": 60, "valid": 2}


# --- what is refused


BAD = [*MAILS, ("", "ham"), ("text", ""), ("text 2", " "), ("text 3", "a\tb")]


def test_refused_rows_are_an_error_that_names_each_reason_with_its_first_place(write: Write) -> None:
    path = write("a.csv", table(BAD))
    for errors in ("strict", "replace"):
        with pytest.raises(InputError) as error:
            opened(path, errors=errors)
        assert error.value.what == (
            "4 of 64 rows cannot be used:\n"
            f"  - {path}, line 63 and 1 other row: The label is empty.\n"
            f"  - {path}, line 62: The column 'text' is empty.\n"
            f"  - {path}, line 65: The label 'a\\tb' holds the control character U+0009."
        )
        assert error.value.where == f"train: {path}"
        assert "data.errors=skip" in error.value.fix


def test_one_refused_row_is_the_error(write: Write) -> None:
    path = write("a.csv", table([*MAILS, ("", "ham")]))
    with pytest.raises(InputError) as error:
        opened(path)
    assert (error.value.what, error.value.where) == ("The column 'text' is empty.", f"{path}, line 62")


def test_many_reasons_are_counted(write: Write) -> None:
    path = write(
        "a.jsonl", lines([{"text": "a", "label": "b"}, *({"text": "a", "label": f"{n}\0"} for n in range(15))])
    )
    with pytest.raises(InputError) as error:
        opened(path)
    assert error.value.what.count("\n") == 11
    assert error.value.what.endswith("  - and 5 rows for other reasons")


def test_refused_rows_can_be_left_out_counted_and_told(write: Write, listener: Any) -> None:
    path = write("a.csv", table(BAD))
    splits = opened(path, listener, errors="skip")
    assert splits.sides == opened(write("b.csv", table(MAILS))).sides
    assert splits.counts["train"].refused == 4
    assert [refusal.where for refusal in splits.refused] == [f"{path}, line {number}" for number in range(62, 66)]
    (told,) = [note for note in listener.notes if "left out" in note]
    assert told == (
        f"train: 4 of 64 rows left out: {path}, line 63 and 1 other row: The label is empty; {path}, line 62: The "
        f"column 'text' is empty; {path}, line 65: The label 'a\\tb' holds the control character U+0009."
    )


def test_rows_of_which_none_is_an_example_are_refused_in_any_case(write: Write) -> None:
    path = write("a.jsonl", "{bad\n{bad\n")
    with pytest.raises(InputError, match="There is no example: all 2 rows were refused"):
        opened(path, errors="skip")
    with pytest.raises(InputError, match="2 of 2 rows cannot be used"):
        opened(path)
    unlabeled = write("b.csv", table(("text", "") for _ in range(3)))
    with pytest.raises(InputError, match=r"all 3 rows were refused \(The label is empty: 3 rows\)"):
        opened(unlabeled, errors="skip", dedup=False)
    with pytest.raises(InputError, match="There is no example") as error:
        opened(write("c.csv", "text,label\n"))
    assert error.value.where.startswith("train: ")


def test_a_label_that_training_never_saw(write: Write) -> None:
    train = write("a.csv", table(MAILS))
    valid = write("b.csv", table([("x", "ham"), ("y", "eggs")]))
    with pytest.raises(InputError, match="It has the label 'eggs', which training never saw") as error:
        opened(train, valid_source=valid)
    assert error.value.where == f"{valid}, line 3"
    splits = opened(train, valid_source=valid, errors="skip")
    assert pairs(splits.sides["valid"]) == [("x", "ham")]
    assert (splits.counts["valid"].rows, splits.counts["valid"].examples, splits.counts["valid"].refused) == (2, 1, 1)


def test_lists_of_labels_do_not_mix_with_labels_across_sides(write: Write) -> None:
    one, lists = write("a.csv", table(MAILS)), write("b.jsonl", lines({"text": t, "label": [x]} for t, x in MAILS))
    with pytest.raises(InputError, match=r"60 of 60 rows cannot be used:\n.*Its label is a list, not one"):
        opened(one, valid_source=lists)
    with pytest.raises(InputError, match="Its label is one, not a list"):
        opened(lists, valid_source=one)
    finetune = FinetuneConfig(task="classify", labels=("ham", "spam"))
    ExampleSplits.open_held_out([str(lists)], DataConfig(), finetune, multi_label=True)
    with pytest.raises(InputError, match="Its label is a list"):
        ExampleSplits.open_held_out([str(lists)], DataConfig(), finetune)


def test_named_labels_fix_the_order_and_refuse_others(write: Write) -> None:
    path = write("a.csv", table(MAILS))
    assert opened(path, finetune={"labels": ("spam", "ham")}).labels == ("spam", "ham")
    with pytest.raises(InputError, match="40 of 60 rows cannot be used") as error:
        opened(path, finetune={"labels": ("ham", "eggs")})
    assert "finetune.labels does not have" in error.value.what
    with pytest.raises(UsageError, match="The task regress has no labels to name"):
        opened(write("b.csv", table([("a", "1.5"), ("b", "2.5")])), finetune={"labels": ("a",)})


def test_an_unseen_tag_is_refused(write: Write) -> None:
    train = write("a.conll", "".join(f"word{n} O\nname{n} B-PER\n\n" for n in range(20)))
    valid = write("b.conll", "Paris B-LOC\n")
    with pytest.raises(InputError, match="It has the tag 'B-LOC', which training never saw"):
        opened(train, valid_source=valid)
    splits = opened(train)
    assert (splits.task, splits.labels) == ("tag", ("B-PER", "O"))


# --- what is told


def test_lost_white_space_and_unread_columns_are_told(write: Write, listener: Any) -> None:
    rows = ((text, f" {label} " if number < 3 else label, "2026") for number, (text, label) in enumerate(MAILS))
    splits = opened(write("a.csv", table(rows, ("text", "label", "date"))), listener)
    assert splits.labels == ("ham", "spam")
    assert listener.notes[1:] == ["train: not read: 'date'.", "train: 3 labels lost the white space around them."]


def test_replaced_bytes_are_told(write: Write, listener: Any) -> None:
    content = table(MAILS).encode() + b"caf\xe9,ham\n"
    splits = opened(write("a.csv", content), listener, errors="replace")
    assert splits.counts["train"].replaced == 1
    assert "train: 1 text with U+FFFD for bytes that are not text." in listener.notes


def test_a_label_for_each_row_is_refused_before_the_split(write: Write) -> None:
    path = write("a.csv", table((f"text {n}", f"id {n}") for n in range(50)))
    with pytest.raises(InputError, match="Each of the 50 examples has a label of its own"):
        opened(path)


def test_several_labels(write: Write) -> None:
    rows = [{"text": f"text {n}", "label": [["x"], ["x", "y"], []][n % 3]} for n in range(30)]
    splits = opened(write("a.jsonl", lines(rows)))
    assert splits.multi_label
    assert splits.labels == ("x", "y")
    assert {label for _, label in pairs(splits.sides["train"])} == {("x",), ("x", "y"), ()}


def test_a_task_that_is_named_is_taken(write: Write, listener: Any) -> None:
    path = write("a.jsonl", lines({"text": f"text {n}", "label": n % 2 + 0.5} for n in range(30)))
    assert opened(path).task == "regress"
    splits = opened(path, listener, {"task": "classify"})
    assert (splits.task, splits.reason, splits.labels) == ("classify", "", ("0.5", "1.5"))
    assert listener.notes == []


# --- other rows for a model that is there


def test_rows_to_evaluate_are_one_side_whole(write: Write, listener: Any) -> None:
    finetune = FinetuneConfig(task="classify", labels=("ham", "spam"))
    path = write("a.csv", table([("a", "ham"), ("a", "ham"), ("b", "ham")]))
    splits = ExampleSplits.open_held_out([str(path)], DataConfig(), finetune, listener)
    assert pairs(splits.sides["--input"]) == [("a", "ham"), ("a", "ham"), ("b", "ham")]
    assert not splits.automatic
    assert splits.labels == ("ham", "spam")
    other = write("b.csv", table([("a", "eggs"), ("b", "ham")]))
    with pytest.raises(InputError, match="the label 'eggs', which the model does not know"):
        ExampleSplits.open_held_out([str(other)], DataConfig(), finetune)


# --- whatever a file holds


FORMS = {
    "a.jsonl": lines({"text": f"é {n}", "label": ["x", "y"][n % 2]} for n in range(6)),
    "b.jsonl": lines(
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]} for _ in "ab"
    ),
    "a.json": json.dumps([{"prompt": f"é {n}", "completion": "x"} for n in range(6)], indent=1),
    "a.csv": table((f'é "{n}"', n + 0.5) for n in range(6)),
    "a.tsv": "tokens\ttags\n" + '"[""a"", ""b""]"\t"[0, 1]"\n' * 6,
    "a.conll": "".join(f"é{n} X O\nb Y B\n\n" for n in range(6)),
}
PIECES = [
    b"\xff",
    b"\x00",
    b'"',
    b",",
    b"\t",
    b"\n",
    b"\r",
    b"{",
    b"[",
    b"}",
    b"\\",
    b"\\ud800",
    b"NaN",
    b"\xe2\x80\xa8",
    b"",
]


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(FORMS)),
    cuts=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 5), st.sampled_from(PIECES)), max_size=4),
    errors=st.sampled_from(["strict", "skip", "replace"]),
)
def test_a_damaged_file_gives_examples_or_an_error_in_words(
    tmp_path_factory: pytest.TempPathFactory, name: str, cuts: list[tuple[int, int, bytes]], errors: str
) -> None:
    content = FORMS[name].encode()
    for start, length, piece in cuts:
        content = content[:start] + piece + content[start + length :]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content)
    with contextlib.suppress(AcornError):
        for examples in opened(path, errors=errors).sides.values():
            assert all(str(example).encode() for example in examples)  # no half of a surrogate pair is left
