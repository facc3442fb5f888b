from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.examples import Record, Refusal, Unusable
from acorn.text.reading import Reading
from acorn.text.record_readers import REPEATED
from acorn.text.records import open_records
from acorn.text.text_files import EXAMPLES, TextFile

Write = Callable[[str, bytes | str], Path]
BOM = b"\xef\xbb\xbf"


def rows(path: Path, reading: Reading | None = None, **settings: Any) -> list[Record | Refusal]:
    data = DataConfig(**settings)
    file = TextFile.at(path, path.name, data.encoding, EXAMPLES)
    return list(open_records(file, data, reading or Reading(data.errors)).records())


def values(path: Path, **settings: Any) -> list[Any]:
    return [dict(row.values) if isinstance(row, Record) else row.reason for row in rows(path, **settings)]


def places(path: Path, **settings: Any) -> list[str]:
    return [row.where for row in rows(path, **settings)]


# --- .jsonl


@given(texts=st.lists(st.text(), min_size=1), ascii_only=st.booleans())
def test_jsonl_gives_each_lines_object(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ascii_only: bool
) -> None:
    """Whatever the text holds: the line separators of Unicode too, which end no line of JSON."""
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    objects = [{"text": text, "label": number} for number, text in enumerate(texts)]
    lines = [json.dumps(one, ensure_ascii=ascii_only) for one in objects]
    path.write_bytes("\n".join(lines).encode())
    assert values(path) == objects


def test_unicodes_line_separators_end_no_line(write: Write) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\x0csix"
    path = write("a.jsonl", json.dumps({"text": text}, ensure_ascii=False) + "\n")
    assert values(path) == [{"text": text}]


def test_lines_have_their_numbers_and_blank_ones_count(write: Write) -> None:
    path = write("a.jsonl", BOM + b'{"a": 1}\r\n\r\n \n{"a": 2}')
    assert places(path) == ["a.jsonl, line 1", "a.jsonl, line 4"]
    assert values(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("name", ["A.JSONL", "a.jsonl.gz"])
def test_endings_may_be_in_capitals_and_packed(write: Write, name: str) -> None:
    content = b'{"a": 1}\n'
    assert values(write(name, gzip.compress(content) if name.endswith("gz") else content)) == [{"a": 1}]


def test_a_bare_list_is_a_conversation(write: Write) -> None:
    assert values(write("a.jsonl", '[{"role": "user"}]\n[]\n')) == [{"messages": [{"role": "user"}]}, {"messages": []}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{bad", "This line is not JSON: Expecting"),
        ("3", "This row is a number, not an object."),
        ("null", "This row is null, not an object."),
        ('"text"', "This row is text, not an object."),
        ("[" * 100_000, "This line is not JSON: maximum recursion depth exceeded"),
        ('{"a": ' + "9" * 5_000 + "}", "This line is not JSON: Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_object_is_refused_and_the_others_are_read(write: Write, line: str, words: str) -> None:
    first, bad, last = rows(write("a.jsonl", f'{{"a": 1}}\n{line}\n{{"a": 2}}\n'))
    assert isinstance(bad, Refusal)
    assert bad.where == "a.jsonl, line 2"
    assert bad.reason.startswith(words)
    assert [first, last] == [Record({"a": 1}, "a.jsonl, line 1"), Record({"a": 2}, "a.jsonl, line 3")]


def test_numbers_beyond_64_bits_and_not_a_number_are_values(write: Write) -> None:
    (row,) = values(write("a.jsonl", '{"a": 1180591620717411303424, "b": NaN, "c": -Infinity, "d": 1e999}'))
    assert row["a"] == 2**70
    assert row["b"] != row["b"]
    assert row["c"] == -row["d"] == float("-inf")


def test_a_key_that_comes_twice_has_no_value(write: Write) -> None:
    path = write("a.jsonl", '{"a": 1, "a": 1, "b": {"c": 1, "c": 2}, "d": 3}')
    assert values(path) == [{"a": REPEATED, "b": {"c": REPEATED}, "d": 3}]


@pytest.mark.parametrize("errors", ["strict", "skip", "replace"])
def test_half_a_surrogate_pair_is_no_text(write: Write, errors: str) -> None:
    path = write("a.jsonl", r'{"a": "x\ud800y", "b": ["\ud83d\ude00", "\uDFFF"], "c": "fine"}')
    (row,) = values(path, errors=errors)
    if errors == "replace":
        assert row == {"a": "x\ufffdy", "b": ["\U0001f600", "\ufffd"], "c": "fine"}
    else:
        assert isinstance(row["a"], Unusable)
        assert row["b"][0] == "\U0001f600"
        assert isinstance(row["b"][1], Unusable)
        assert row["c"] == "fine"


def test_deep_nesting_is_no_fault_of_the_reader(write: Write) -> None:
    deep = "[" * 700 + '"é"' + "]" * 700
    for name in ("a.jsonl", "a.json"):
        (row,) = rows(write(name, f'{{"text": "é", "other": {deep}}}'))
        assert isinstance(row, Record) or row.reason == "This row is nested too deeply."


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.conll"])
def test_bytes_that_are_not_text(write: Write, name: str) -> None:
    content = {
        "a.jsonl": b'{"text": "caf\xe9", "label": "x"}\n',
        "a.json": b'[{"text": "caf\xe9", "label": "x"}]\n',
        "a.csv": b"text,label\ncaf\xe9,x\n",
        "a.conll": b"caf\xe9 x\n",
    }[name]
    path = write(name, content)
    with pytest.raises(InputError, match="not UTF-8: byte 0xE9") as error:
        rows(path)
    assert f"{name}, line {2 if name == 'a.csv' else 1}" in error.value.where
    assert "data.encoding=latin-1" in error.value.fix
    first = "tokens" if name == "a.conll" else "text"

    def value(**settings: Any) -> Any:
        (row,) = values(path, **settings)
        return row[first][0] if first == "tokens" else row[first]

    assert value(encoding="latin-1") == "café"
    assert isinstance(value(errors="skip"), Unusable)
    assert value(errors="replace") == "caf\ufffd"
    reading = Reading("replace")
    rows(path, reading, errors="replace")
    assert reading.counts.replaced == 1


# --- .json


@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_a_list_of_objects(write: Write, indent: int | None) -> None:
    objects = [{"a": 1}, {"a": ["é", None]}, 3]
    path = write("a.json", BOM + json.dumps(objects, indent=indent).encode())
    assert values(path) == [{"a": 1}, {"a": ["é", None]}, "This row is a number, not an object."]
    assert places(path) == ["a.json, row 1", "a.json, row 2", "a.json, row 3"]


def test_json_may_be_one_object_a_line(write: Write) -> None:
    path = write("a.json", '\n{"a": 1}\n\n{"a": 2\n{"a": 3}\n')
    assert values(path)[::2] == [{"a": 1}, {"a": 3}]
    assert places(path) == ["a.json, line 2", "a.json, line 4", "a.json, line 5"]
    assert values(write("b.json", '[{"role": "user"}]\n[{"role": "user"}]')) == [{"messages": [{"role": "user"}]}] * 2


def test_a_single_object_and_a_single_conversation_are_one_row(write: Write) -> None:
    assert values(write("a.json", '{"a":\n 1}')) == [{"a": 1}]
    assert values(write("b.json", '[{"role": "user"}, {"role": "assistant"}]')) == [
        {"messages": [{"role": "user"}, {"role": "assistant"}]}
    ]
    assert values(write("c.json", " \n")) == values(write("d.json", "[]")) == []


@pytest.mark.parametrize("content", ['[{"a": 1}, {"a"', '{\n"a": 1}\n{\n"a": 2}\n', "text", "[" * 100_000])
def test_a_file_that_is_not_json_is_refused_whole(write: Write, content: str) -> None:
    with pytest.raises(InputError, match="The file is not JSON") as error:
        rows(write("a.json", content), errors="skip")
    assert "one object a line" in error.value.fix


# --- .csv and .tsv


@given(
    table=st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2), min_size=1),
    dialect=st.sampled_from([("a.csv", ","), ("a.tsv", "\t")]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_written_as_csv_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], dialect: tuple[str, str], end: str
) -> None:
    name, delimiter = dialect
    if name == "a.tsv":  # there it shows that a quote is not closed
        table = [[cell.replace("\n", " ").replace("\r", " ") for cell in row] for row in table]
    content = io.StringIO(newline="")
    csv.writer(content, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *table])
    path = tmp_path_factory.mktemp("csv") / name
    path.write_bytes(content.getvalue().encode())
    assert values(path) == [dict(zip("ab", row, strict=True)) for row in table]


def test_csv_has_places_by_line_and_is_not_typed(write: Write) -> None:
    path = write("a.csv", BOM + b'text,label\r\n"two\r\nlines, and a ""quote""",1\r\n\r\nsay "hi",2\r\n')
    assert rows(path) == [
        Record({"text": 'two\r\nlines, and a "quote"', "label": "1"}, "a.csv, line 2", typed=False),
        Record({"text": 'say "hi"', "label": "2"}, "a.csv, line 5", typed=False),
    ]


def test_csv_may_end_its_lines_with_carriage_returns_alone(write: Write) -> None:
    assert values(write("a.csv", 'a,b\r1,2\r"3\r4",5\r')) == [{"a": "1", "b": "2"}, {"a": "3\r4", "b": "5"}]


def test_csv_keeps_nul_and_what_separates_lines_elsewhere(write: Write) -> None:
    assert values(write("a.csv", "a,b\n1\x002,3\u20284\x0b\n")) == [{"a": "1\x002", "b": "3\u20284\x0b"}]


def test_a_long_field_is_read_and_the_modules_own_limit_stays(write: Write) -> None:
    before = csv.field_size_limit()
    long = "x" * (before + 1)
    assert values(write("a.csv", f"a,b\n{long},1\n")) == [{"a": long, "b": "1"}]
    assert csv.field_size_limit() == before


def test_rows_of_other_widths_are_refused(write: Write) -> None:
    assert values(write("a.csv", "a,b\n1\n1,2\n1,2,3\n")) == [
        "This row has 1 field, but the header has 2.",
        {"a": "1", "b": "2"},
        "This row has 3 fields, but the header has 2.",
    ]


def test_quotes_that_do_not_fit_are_refused_and_the_next_lines_are_read(write: Write) -> None:
    path = write("a.csv", 'a,b\n"bad"x,1\ngood,2\n"open,3\nand on,4\n')
    assert places(path) == ["a.csv, line 2", "a.csv, line 3", "a.csv, line 4"]
    bad, good, unclosed = values(path)
    assert "',' expected after '\"'" in bad
    assert good == {"a": "good", "b": "2"}
    assert "unexpected end of data" in unclosed
    assert "goes on to line 5" in unclosed


def test_a_stray_quote_does_not_swallow_lines_of_a_tsv(write: Write) -> None:
    path = write("a.tsv", 'text\tlabel\n"Good\t1\nBad\t0\nWhat a "\t1\nFine\t1\n')
    assert values(path) == [
        "A quoted field holds tabs and line ends: some quote is not closed.",
        {"text": "Fine", "label": "1"},
    ]


def test_a_column_that_comes_twice_has_no_value(write: Write) -> None:
    assert values(write("a.csv", "a,b,a\n1,2,3\n")) == [{"a": REPEATED, "b": "2"}]


@pytest.mark.parametrize(("name", "header"), [("a.csv", "a;b"), ("a.csv", "a\tb"), ("a.tsv", "a,b")])
def test_other_separators_are_named(write: Write, name: str, header: str) -> None:
    with pytest.raises(InputError, match="The header is one column") as error:
        rows(write(name, f"{header}\n1\n"))
    assert error.value.where == f"{name}, line 1"


def test_a_header_with_an_open_quote_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="The header cannot be read"):
        rows(write("a.csv", '"text,label\na,b\n'))
    assert rows(write("a.csv", "text,label\n")) == rows(write("a.csv", "")) == []


def test_a_file_that_is_cut_short_is_refused(write: Write) -> None:
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    with pytest.raises(InputError, match="truncated"):
        rows(write("a.csv.gz", packed[:-20]))


# --- CoNLL


def test_conll_takes_the_first_and_the_last_column(write: Write) -> None:
    document = "-DOCSTART- -X- -X- O\r\n\r\n"
    first = "EU NNP B-NP B-ORG\r\n# SYM  O O\r\n. . O O\r\n \r\n\r\n"
    second = "# id 7\r\n# SYM O O\r\nPeter NNP B-NP B-PER \r\n-DOCSTART- -X- -X- O\r\nlast . O O"
    assert rows(write("a.conll", document + first + second)) == [
        Record({"tokens": ["EU", "#", "."], "tags": ["B-ORG", "O", "O"]}, "a.conll, line 3"),
        Record({"tokens": ["#", "Peter"], "tags": ["O", "B-PER"]}, "a.conll, line 9"),
        Record({"tokens": ["last"], "tags": ["O"]}, "a.conll, line 12"),
    ]


def test_tabs_part_columns_where_there_are_any(write: Write) -> None:
    assert values(write("a.iob", "New York\tB-LOC\nis\tO\n")) == [
        {"tokens": ["New York", "is"], "tags": ["B-LOC", "O"]}
    ]


def test_a_sentence_of_ragged_lines_is_refused(write: Write) -> None:
    path = write("a.conll", "# a comment of five words\na O\nb O\n\nc X O\n\nd O\n")
    assert values(path) == [
        {"tokens": ["a", "b"], "tags": ["O", "O"]},
        "This line has 3 columns, but the first of the file has 2.",
        {"tokens": ["d"], "tags": ["O"]},
    ]
    assert places(path) == ["a.conll, line 2", "a.conll, line 5", "a.conll, line 7"]
    assert values(write("b.conll", "a\nb\n")) == [{"tokens": ["a", "b"]}]
