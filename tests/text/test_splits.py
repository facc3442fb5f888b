from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET
from acorn.text.splits import TextSplits

Write = Callable[[str, bytes | str], Path]


def jsonl(texts: Iterable[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def opened(*sources: Path | str, progress: Any = QUIET, **settings: Any) -> TextSplits:
    return TextSplits.open(DataConfig(source=tuple(map(str, sources)), **settings), progress)


def texts(splits: TextSplits, split: str) -> list[str]:
    return [document.text for document in splits.documents(split)]


TEXTS = [f"document {number}" for number in range(500)]

# --- the automatic split


def test_every_document_is_on_one_side_and_about_a_tenth_is_validation(write: Write) -> None:
    splits = opened(write("a.jsonl", jsonl(TEXTS)))
    assert splits.names == ("train", "valid")
    train, valid = texts(splits, "train"), texts(splits, "valid")
    assert sorted(train + valid) == sorted(TEXTS)
    assert 25 <= len(valid) <= 80  # binomial: mean 50, standard deviation 6.7
    assert texts(splits, "train") == train  # each pass is the same


@settings(max_examples=20)
@given(
    more=st.lists(st.one_of(st.text(min_size=1), st.sampled_from(TEXTS)), max_size=30),  # new ones and repeats
    fraction=st.sampled_from([0.05, 0.3]),
)
def test_adding_files_moves_no_document(
    tmp_path_factory: pytest.TempPathFactory, more: list[str], fraction: float
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "m.jsonl").write_text(jsonl(TEXTS))
    before = texts(opened(folder, valid_fraction=fraction), "valid")
    (folder / "a.jsonl").write_text(jsonl(more))
    (folder / "z.txt").write_text("A file of another kind.")
    after = opened(folder, valid_fraction=fraction)
    assert set(before) <= set(texts(after, "valid"))
    assert not set(before) & set(texts(after, "train"))


def test_a_larger_fraction_keeps_the_documents_held_out_before(write: Write) -> None:
    path = write("a.jsonl", jsonl(TEXTS))
    held_out = [set(texts(opened(path, valid_fraction=share), "valid")) for share in (0.05, 0.1, 0.5)]
    assert held_out[0] < held_out[1] < held_out[2]


def test_the_side_does_not_depend_on_how_a_text_is_stored(write: Write, tmp_path: Path) -> None:
    documents = [f"document {number}\n" for number in range(100)]
    by_line = opened(write("a.txt", "".join(documents)), document="line")
    by_row = opened(write("a.jsonl", jsonl(documents)))
    assert texts(by_line, "valid") == texts(by_row, "valid")


def test_one_plain_file_is_enough(write: Write) -> None:
    paragraphs = [f"Paragraph {number}, one of many in the only file there is.\n\n" for number in range(1_000)]
    path = write("my.txt", "".join(paragraphs))
    splits = opened(path)
    train, valid = texts(splits, "train"), texts(splits, "valid")
    assert len(train) + len(valid) in range(60, 71)
    assert valid
    assert sorted("".join(train + valid).splitlines()) == sorted("".join(paragraphs).splitlines())
    # With text for validation, or with a second file, a short file is one document.
    assert texts(opened(path, valid_source=str(path)), "train") == ["".join(paragraphs)]
    others = [write(f"{number}.txt", f"Another text, number {number}.") for number in range(30)]
    with_others = opened(path, *others)
    assert len(texts(with_others, "train")) + len(texts(with_others, "valid")) == 31


def test_a_side_without_a_document_is_refused_with_both_counts(write: Write) -> None:
    """Fault 1: one side of the split empty: refuse with counts."""
    path = write("a.jsonl", jsonl(TEXTS[:50]))
    with pytest.raises(InputError, match=r"for validation: 50 documents for training, 0 for validation"):
        texts(opened(path, valid_fraction=1e-9), "train")
    with pytest.raises(InputError, match=r"for training: 0 documents for training, 50 for validation"):
        texts(opened(path, valid_fraction=1 - 1e-9), "valid")
    with pytest.raises(
        InputError, match=r"1 document for training, 0 for validation|0 documents for training, 1 for validation"
    ) as error:
        texts(opened(write("tiny.txt", "Too short to be split.")), "train")
    assert "data.valid_source" in error.value.fix


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(
    ("name", "content", "config", "words"),
    [
        ("a.txt", "", {}, "is empty"),
        ("a.txt", " \n\n \t", {}, "dropped: 1 empty"),
        ("a.jsonl", jsonl(["", " "]), {}, "dropped: 2 empty"),
        ("a.jsonl", "{}\n{}\n{}\n", {"errors": "skip"}, "dropped: 3 bad"),
    ],
)
def test_a_corpus_without_a_document_is_refused_with_counts(
    write: Write, split: str, name: str, content: str, config: dict[str, Any], words: str
) -> None:
    """Fault 1: empty corpus: refuse with counts."""
    path = write(name, content)
    with pytest.raises(InputError, match=words) as error:
        texts(opened(path, **config), split)
    assert str(path) in error.value.where


def test_a_corpus_that_cleaning_leaves_empty_is_refused_with_counts(write: Write) -> None:
    """Fault 1: empty after cleaning: refuse with counts."""
    path = write("a.txt", "'\n\\\n''\n" * 20)
    with pytest.raises(InputError, match="cleaning"):
        texts(opened(path, clean="wikitext", dedup=False), "train")


# --- separate text for validation and test


def test_validation_and_test_text_can_be_named(write: Write) -> None:
    train, valid, test = (write(f"{name}.txt", f"{name} one\n{name} two\n") for name in ("train", "valid", "test"))
    splits = opened(train, valid_source=str(valid), test_source=str(test), document="line")
    assert splits.names == ("train", "valid", "test")
    assert {name: texts(splits, name) for name in splits.names} == {
        name: [f"{name} one\n", f"{name} two\n"] for name in ("train", "valid", "test")
    }
    with_share = opened(train, test_source=str(test), document="line", valid_fraction=0.5)
    assert with_share.names == ("train", "valid", "test")
    assert texts(with_share, "test") == ["test one\n", "test two\n"]


def test_a_missing_split_is_refused_with_the_key_for_it(write: Write) -> None:
    with pytest.raises(UsageError, match="no test text") as error:
        texts(opened(write("a.jsonl", jsonl(TEXTS))), "test")
    assert error.value.fix == "name it in data.test_source"


def test_named_validation_text_replaces_the_sources_own(write: Write) -> None:
    splits = opened("bundled:wikitext-2", valid_source=str(write("mine.txt", "Mine.\n")))
    assert splits.names == ("train", "valid", "test")
    assert texts(splits, "valid") == ["Mine.\n"]
    both = opened(write("my.txt", "Mine.\n"), valid_source=("bundled:wikitext-2", str(write("more.txt", "More.\n"))))
    assert len(texts(both, "valid")) == 2461 + 1


def test_duplicates_are_dropped_from_training_only(write: Write) -> None:
    lines = "one\ntwo\none\none\n"
    train, valid = write("train.txt", lines), write("valid.txt", "three\nthree\n")
    splits = opened(train, valid_source=str(valid), document="line")
    assert texts(splits, "train") == ["one\n", "two\n"]
    assert texts(splits, "valid") == ["three\n", "three\n"]
    assert splits.counts["train"]["dropped_duplicates"] == 2
    assert splits.counts["train"]["documents"] == 2
    assert texts(opened(train, valid_source=str(valid), document="line", dedup=False), "train") == [
        "one\n", "two\n", "one\n", "one\n",
    ]  # fmt: skip


@pytest.mark.parametrize("policy", ["warn", "drop", "fail"])
def test_overlap(write: Write, listener: Any, policy: str) -> None:
    """Fault 16: the same document in train and validation: reported with a rate; warn, drop, fail."""
    train = write("train.txt", "a\nb\nb\nc\nd\n")
    valid = write("valid.txt", "b\nb\nx\nyy\nz\n")
    test = write("test.txt", "b\nc\n")
    splits = opened(
        train, valid_source=str(valid), test_source=str(test), document="line", overlap=policy, progress=listener
    )
    note = (
        "1 of 4 distinct valid documents (25.00%; 22.22% of their bytes) and "
        "2 of 2 distinct test documents (100.00%; 100.00% of their bytes) are also training documents"
    )
    if policy == "fail":
        with pytest.raises(InputError) as error:
            texts(splits, "train")
        assert error.value.what == f"{note}."
    else:
        expected = ["a\n", "b\n", "c\n", "d\n"] if policy == "warn" else ["a\n", "d\n"]
        assert texts(splits, "train") == expected
        assert texts(splits, "train") == expected  # and is noted once
        assert listener.notes[-1] == note + (", and were dropped from training." if policy == "drop" else ".")
        assert sum("are also training documents" in note for note in listener.notes) == 1
        assert splits.counts["train"]["dropped_overlap"] == (3 if policy == "drop" else 0)
    assert splits.overlap == {"valid": 0.25, "test": 1.0}
    assert texts(splits, "valid") == ["b\n", "b\n", "x\n", "yy\n", "z\n"]  # all held-out text is scored


def test_an_automatic_split_does_not_overlap(write: Write, listener: Any) -> None:
    splits = opened(write("a.jsonl", jsonl(TEXTS * 2)), overlap="fail", progress=listener)
    train, valid = texts(splits, "train"), texts(splits, "valid")
    assert not set(train) & set(valid)
    assert len(train) == len(set(train))
    assert len(valid) == len(set(valid))
    assert sorted(train + valid) == sorted(TEXTS)
    assert splits.overlap == {"valid": 0.0}


# --- repeats


@settings(max_examples=20)
@given(
    copies=st.lists(st.integers(1, 9), min_size=len(TEXTS[:60]), max_size=60), order=st.randoms(use_true_random=False)
)
def test_repeats_change_neither_side_of_an_automatic_split(
    tmp_path_factory: pytest.TempPathFactory, copies: list[int], order: Any
) -> None:
    """Each document occurs once, on the side that its hash selects, however often and wherever it is repeated."""
    repeated = [text for text, n in zip(TEXTS[:60], copies, strict=True) for _ in range(n)]
    order.shuffle(repeated)
    folder = tmp_path_factory.mktemp("repeats")
    (folder / "once.jsonl").write_text(jsonl(TEXTS[:60]))
    (folder / "often.jsonl").write_text(jsonl(repeated))
    once, often = (opened(folder / f"{name}.jsonl", valid_fraction=0.3) for name in ("once", "often"))
    for split in ("train", "valid"):
        assert sorted(texts(often, split)) == sorted(texts(once, split))
    dropped = [often.counts[split]["dropped_duplicates"] for split in ("train", "valid")]
    assert sum(dropped) == len(repeated) - 60


@pytest.mark.parametrize("first", ["train", "valid"])
def test_dropped_repeats_are_noted_once_with_a_warning_if_they_are_the_majority(
    write: Write, listener: Any, first: str
) -> None:
    rows = [*TEXTS[:60], *TEXTS[:70]]
    splits = opened(write("a.jsonl", jsonl(rows)), progress=listener)
    for split in (first, "train", "valid"):
        texts(splits, split)
    n_bytes, all_bytes = sum(map(len, TEXTS[:60])), sum(map(len, rows))
    note = (
        f"130 documents, 70 of them distinct: the 60 exact repeats ({n_bytes} of {all_bytes:,} bytes) were dropped "
        "before the split into training and validation (data.dedup=false keeps them)."
    )
    assert listener.notes == [note]
    listener.notes.clear()
    texts(opened(write("b.jsonl", jsonl(TEXTS[:60] * 3)), progress=listener), first)
    assert listener.notes[0].startswith("warning: 180 documents, 60 of them distinct")


def test_kept_repeats_give_a_warning_if_they_are_the_majority(write: Write, listener: Any) -> None:
    path = write("a.jsonl", jsonl(TEXTS[:60] * 3))
    splits = opened(path, dedup=False, progress=listener)
    assert sorted(texts(splits, "train") + texts(splits, "valid")) == sorted(TEXTS[:60] * 3)
    (note,) = listener.notes
    assert note.startswith("warning: 180 documents, 60 of them distinct")
    assert "are kept (data.dedup=false)" in note


def test_one_repeated_document_cannot_be_split(write: Write) -> None:
    """Fault 1: refused with both numbers."""
    path = write("a.txt", "hello world\n" * 5_000)
    for split in ("train", "valid"):
        with pytest.raises(InputError, match="of 5,000 documents, 1 is distinct") as error:
            texts(opened(path, document="line"), split)
        assert "data.valid_source" in error.value.fix
        assert "data.document" not in error.value.fix
    held_out = write("valid.txt", "good morning\n")
    assert texts(opened(path, document="line", valid_source=str(held_out)), "train") == ["hello world\n"]


def test_named_held_out_text_keeps_its_repeats(write: Write, listener: Any) -> None:
    """All its rows are scored. Training drops its repeats, with a note."""
    train, held_out = write("a.jsonl", jsonl(TEXTS[:10] * 2)), write("b.jsonl", jsonl(TEXTS[20:30] * 3))
    splits = opened(train, valid_source=str(held_out), test_source=str(held_out), progress=listener)
    assert texts(splits, "valid") == texts(splits, "test") == TEXTS[20:30] * 3
    assert texts(splits, "train") == TEXTS[:10]
    assert listener.notes == [
        "20 documents, 10 of them distinct: the 10 exact repeats (100 of 200 bytes) were dropped from training "
        "(data.dedup=false keeps them)."
    ]


# --- hints


@pytest.mark.parametrize(
    ("name", "content", "config", "finer"),
    [
        ("a.txt", "One.\nTwo.\n", {}, "line"),  # a single file is cut into blocks; this one is too small for two
        ("a.txt", "One.\nTwo.\n", {"document": "file"}, "line"),
        ("a.txt", "".join(f"{n}, and a line\n\n" for n in range(40)), {"document": "file"}, "block"),
        ("a.txt", "Too short to be split.", {}, ""),
        ("a.txt", "Equal lines.\nEqual lines.\n", {"document": "file"}, ""),
        ("a.txt", "One line and blank ones.\n\n\n", {"document": "block"}, ""),
        ("a.txt", "One.\nTwo.\n", {"document": "block"}, "line"),
        ("a.txt", "One.\nTwo.\n", {"document": "line"}, ""),
        ("a.txt", " = Title = \n A <unk> 17th @-@ century house .\n", {}, ""),  # read by lines anyway
        ("a.txt", "One.\nTwo.\n", {"clean": "wikitext"}, ""),
        ("a.jsonl", jsonl(TEXTS[:2]), {}, ""),
    ],
)
def test_a_finer_unit_is_proposed_only_if_it_helps(
    write: Write, name: str, content: str, config: dict[str, Any], finer: str
) -> None:
    with pytest.raises(InputError, match="too little text to hold out") as error:
        texts(opened(write(name, content), valid_fraction=1e-9, **config), "train")
    assert ("data.document" in error.value.fix) == bool(finer)
    assert f'data.document = "{finer}"' in error.value.fix or not finer


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_advice_for_a_single_document_does_not_name_the_fraction(write: Write, name: str) -> None:
    """Fault 1: it is on one side, whatever the fraction is. Two documents are divided by some fraction."""
    content = "Too short to be split." if name == "a.txt" else jsonl(TEXTS[:1])
    with pytest.raises(InputError, match="1 document for training, 0 for validation") as error:
        texts(opened(write(name, content), valid_fraction=1e-9), "train")
    assert error.value.where.endswith(name)
    assert error.value.fix == "give more text, or name validation text in data.valid_source"
    with pytest.raises(InputError, match="2 documents for training, 0 for validation") as error:
        texts(opened(write("b.jsonl", jsonl(TEXTS[:2])), valid_fraction=1e-9), "train")
    assert "change data.valid_fraction" in error.value.fix


def test_blocks_are_not_proposed_for_tiny_files(write: Write, listener: Any) -> None:
    files = [write(f"{name}.txt", f"{name}, a file of one line\n") for name in "abcdefghij"]
    texts(opened(*files, valid_fraction=0.5, progress=listener), "valid")
    assert not [note for note in listener.notes if "whole file" in note]


def some_files(write: Write, count: int) -> list[Path]:
    lines = (f"line {number}, of a text of many lines\n\n" for number in range(1000 * count))
    return [write(f"{name}.txt", "".join(next(lines) for _ in range(1000))) for name in "abcdefgh"[:count]]


def test_blocks_are_proposed_for_few_files(write: Write) -> None:
    two = some_files(write, 2)
    with pytest.raises(InputError, match="too little text to hold out") as error:
        texts(opened(*two, valid_fraction=1e-9), "train")
    assert 'data.document = "block"' in error.value.fix


def test_blocks_of_a_file_do_not_depend_on_other_files(write: Write) -> None:
    three = some_files(write, 3)
    alone = {side: texts(opened(three[0], document="block"), side) for side in ("train", "valid")}
    together = {side: texts(opened(*three, document="block"), side) for side in ("train", "valid")}
    assert sum(map(len, alone.values())) == pytest.approx(64, abs=8)
    for side in ("train", "valid"):
        assert [text for text in together[side] if text in set(alone["train"] + alone["valid"])] == alone[side]
    assert sum(map(len, together.values())) == pytest.approx(3 * 64, abs=24)
    assert alone == {side: texts(opened(three[0]), side) for side in ("train", "valid")}  # a single file is also cut


def test_validation_of_a_few_whole_files_gives_a_warning(write: Write, listener: Any) -> None:
    files = some_files(write, 4)
    splits = opened(*files, valid_fraction=0.5, progress=listener)
    held_out = len(texts(splits, "valid"))
    assert 0 < held_out < 4
    [note] = [note for note in listener.notes if "whole file" in note]
    assert note.startswith(f"warning: validation is {held_out} whole file")
    for quiet in ({"document": "block"}, {"document": "line"}):
        listener.notes.clear()
        texts(opened(*files, valid_fraction=0.5, progress=listener, **quiet), "valid")
        assert not [note for note in listener.notes if "whole file" in note]


@pytest.mark.parametrize(
    ("content", "config", "hint"),
    [
        ("caf\xe9".encode("latin-1"), {"errors": "skip"}, "data.encoding"),
        (b"'\n''\n", {"clean": "wikitext", "dedup": False}, "data.clean"),
        (b" \n", {}, "more than white space"),
    ],
)
def test_the_advice_for_an_empty_text_fits_the_cause(
    write: Write, content: bytes, config: dict[str, Any], hint: str
) -> None:
    train, held_out = write("a.txt", content), write("b.txt", "Held out.")
    with pytest.raises(InputError, match="no document") as error:
        texts(opened(train, valid_source=str(held_out), **config), "train")
    assert hint in error.value.fix


# --- counts


def test_bad_rows_of_an_automatic_split_are_counted_and_noted_once(write: Write, listener: Any) -> None:
    path = write("a.jsonl", jsonl(TEXTS[:80]) + "{bad\n\n{}\n" + jsonl(["", " "]))
    splits = opened(path, errors="skip", progress=listener)
    train, valid = texts(splits, "train"), texts(splits, "valid")
    assert splits.counts["train"]["dropped_bad"] == 2
    assert splits.counts["train"]["dropped_empty"] == 2
    assert splits.counts["valid"]["dropped_bad"] == splits.counts["valid"]["dropped_empty"] == 0
    for split, documents in (("train", train), ("valid", valid)):
        assert splits.counts[split]["documents"] == len(documents)
        assert splits.counts[split]["bytes"] == sum(len(text) for text in documents)
        assert splits.counts[split]["words"] == sum(len(text.split()) + 1 for text in documents)
    assert listener.notes == [f"train: 2 bad rows were dropped: 2 of {path}."]


def test_whole_files_that_are_dropped_are_named(write: Write, listener: Any) -> None:
    """Fault 8: with data.errors = "skip" no file is dropped silently."""
    files = [write(f"{number:02d}.txt", f"Text number {number}.") for number in range(60)]
    bad = [write(f"bad{number}.txt", f"\xe9t\xe9 {number}".encode("latin-1")) for number in range(40)]
    splits = opened(files[0].parent, errors="skip", progress=listener)
    read = texts(splits, "train") + texts(splits, "valid")
    assert len(read) == len(files)
    notes = {note.split(":")[0]: note for note in listener.notes if " were dropped" in note}
    assert set(notes) == {"train", "valid"}
    assert sum(int(note.split()[1]) for note in notes.values()) == len(bad)
    assert all("bad rows were dropped: all of " in note for note in notes.values())
    assert notes["train"].endswith(" more.")


def test_columns_that_are_not_read_are_noted_once(write: Write, listener: Any) -> None:
    rows = "".join(json.dumps({"text": text, "label": 1, "id": 2}) + "\n" for text in TEXTS[:50])
    first, second = write("a.jsonl", rows), write("b.jsonl", rows.replace("document", "other").replace('"id"', '"key"'))
    splits = opened(first, second, progress=listener)
    expected = [
        f"{first}: the text is the column 'text'; not read: 'label', 'id'.",
        f"{second}: the text is the column 'text'; not read: 'key'.",
    ]
    assert listener.notes == expected  # before a complete pass
    for split in ("train", "valid"):
        texts(splits, split)
    assert listener.notes == expected


def test_equal_text_is_on_the_same_side_in_any_encoding(write: Write) -> None:
    lines = [f"élève {number}\n" for number in range(100)]
    utf8 = opened(write("a.txt", "".join(lines)), document="line")
    utf16 = opened(write("b.txt", "".join(lines).encode("utf-16")), document="line", encoding="utf-16")
    for split in ("train", "valid"):
        assert texts(utf8, split) == texts(utf16, split)
        assert utf8.counts[split]["bytes"] == utf16.counts[split]["bytes"]


# --- WikiText


@pytest.mark.parametrize(
    ("clean", "kind", "entries"),
    [
        ("none", "bpe", ("<unk>",)),
        ("none", "wordpiece", ("<unk>",)),
        ("wikitext", "bpe", ("[UNK]",)),
        ("wikitext", "wordpiece", ()),
    ],
)
def test_wikitext_gives_the_tokenizer_an_entry(write: Write, clean: str, kind: Any, entries: tuple[str, ...]) -> None:
    """Fault 13: with WikiText sources, `<unk>` is a vocabulary entry."""
    path = write("a.txt", " = Title = \n \n A <unk> 17th @-@ century house .\n")
    splits = opened(path, clean=clean)
    assert splits.has_wikitext
    assert splits.entries(kind) == entries


def test_wikitext_is_detected_in_any_source_and_format(write: Write) -> None:
    rows = jsonl(["", " = Title = \n", " A <unk> 17th @-@ century house .\n"])
    plain, wikitext = write("plain.txt", "Plain text.\n"), write("w.jsonl", rows)
    assert opened(plain, wikitext).has_wikitext
    assert not opened(plain).has_wikitext
    assert opened(plain).entries("bpe") == ()


# --- other text for scoring, and changes between passes


def test_text_for_scoring_is_one_split(write: Write) -> None:
    path = write("a.txt", "one\ntwo\ntwo\n")
    splits = TextSplits.open_held_out([str(path)], DataConfig(document="line"))
    assert splits.names == ("--input",)
    assert texts(splits, "--input") == ["one\n", "two\n", "two\n"]
    assert not splits.automatic
    assert len(texts(TextSplits.open_held_out(["bundled:wikitext-2"], DataConfig()), "--input")) == 2891


@pytest.mark.parametrize("named_by", ["--input", "data.valid_source"])
def test_an_empty_text_is_reported_with_its_option(write: Write, named_by: str) -> None:
    path = write("a.txt", "")
    splits = TextSplits.open_held_out([str(path)], DataConfig(), named_by=named_by)
    with pytest.raises(InputError, match="is empty") as error:
        texts(splits, named_by)
    assert error.value.where == f"{named_by}: {path}"


def test_the_encoding_of_the_run_is_noted_for_other_text(write: Write, listener: Any) -> None:
    path = write("a.txt", "é".encode("latin-1"))
    splits = TextSplits.open_held_out([str(path)], DataConfig(encoding="latin-1"), listener)
    assert texts(splits, "--input") == ["é"]
    assert listener.notes == ["Text files are read as iso8859-1 (data.encoding)."]


def test_a_file_that_changes_between_two_passes_is_noticed(write: Write) -> None:
    """Fault 14: a file changed between the passes over it."""
    path = write("a.jsonl", jsonl(TEXTS))
    splits = opened(path)
    texts(splits, "train")
    with path.open("a") as file:
        file.write(jsonl(["one more"]))
    with pytest.raises(InputError, match="changed while it was in use") as error:
        texts(splits, "valid")
    assert error.value.where == str(path)
    os.remove(path)
    with pytest.raises(InputError, match="The file cannot be read"):
        texts(splits, "valid")


def test_the_caller_names_the_task(write: Write, listener: Any) -> None:
    splits = opened(write("a.jsonl", jsonl(TEXTS)), progress=listener)
    list(splits.documents("valid", "looking at text"))
    assert listener.ended == ["looking at text"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_refused_in_every_split_before_anything_is_read(encoding: str, tmp_path: Path) -> None:
    """The validation text is read only after the vocabulary was learned: hours later, if the text is large."""
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    train.write_text("a line\n" * 99)
    valid.write_text("another line\n" * 9, encoding=encoding)
    data = DataConfig(source=(str(train),), valid_source=(str(valid),))
    with pytest.raises(InputError, match=f"begins like {encoding.upper()}") as error:
        TextSplits.open(data)
    assert (error.value.where, f"data.encoding={encoding}," in error.value.fix) == (str(valid), True)
    train.write_text("a line\n" * 99, encoding=encoding)
    assert TextSplits.open(data.model_copy(update={"encoding": encoding})).parts
    assert TextSplits.open(data.model_copy(update={"errors": "replace"})).parts


@pytest.mark.parametrize(
    "text", ["", "a", "áéíóú " * 9, "日本語のテキスト" * 9, "a\0b\0c " * 2 + "some more text " * 9]
)
def test_other_text_is_not_taken_for_utf16(text: str, tmp_path: Path) -> None:
    path = tmp_path / "my.txt"
    path.write_text(text, "utf-8")
    assert TextSplits.open(DataConfig(source=(str(path),))).parts


def test_a_binary_file_is_told_to_be_no_text(tmp_path: Path) -> None:
    path = tmp_path / "my.txt"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match="This is not a text file: it has zero bytes, and byte 0x80") as error:
        list(TextSplits.open(DataConfig(source=(str(path),))).documents("train"))
    assert "latin-1" not in error.value.fix
