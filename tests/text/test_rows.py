from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.corpus import Corpus
from acorn.text.reading import Reading
from acorn.text.rows import BLOCK_BYTES, MAX_WHOLE_FILE_BYTES, file_reader
from acorn.text.text_files import TextFile

Write = Callable[[str, bytes | str], Path]
BOM = b"\xef\xbb\xbf"


def rows(
    path: Path, *, cut_small: bool = False, reading: Reading | None = None, **settings: Any
) -> list[tuple[bytes, int]]:
    data = DataConfig(**settings)
    file = TextFile.at(path, encoding=data.encoding)
    return list(file_reader(file, data, reading or Reading(data.errors), cut_small=cut_small).rows())


def texts(path: Path, **settings: Any) -> list[bytes]:
    return [raw for raw, _ in rows(path, **settings)]


# --- .txt


def test_a_short_file_is_one_row_and_a_long_one_is_cut(write: Write) -> None:
    line = b"Twelve words make one line of this file, which repeats and repeats.\n"
    short = line * (MAX_WHOLE_FILE_BYTES // len(line))
    assert texts(write("short.txt", short)) == [short]
    long = short + line
    blocks = texts(write("long.txt", long))
    assert b"".join(blocks) == long
    assert all(BLOCK_BYTES - len(line) < len(block) <= BLOCK_BYTES for block in blocks[:-1])
    assert all(block.endswith(b"\n") for block in blocks)
    assert texts(write("long.txt.gz", gzip.compress(long))) == blocks
    assert texts(write("long.txt", long), document="file") == [long]


def test_a_lone_short_file_can_be_cut_into_about_64_blocks(write: Write) -> None:
    text = b"".join(b"Paragraph %d of the file, followed by a blank line.\n\n" % number for number in range(2_000))
    blocks = texts(write("my.txt", text), cut_small=True)
    assert b"".join(blocks) == text
    assert 60 <= len(blocks) <= 70
    assert all(block.endswith(b"\n\n") for block in blocks)
    tiny = texts(write("tiny.txt", text[:1000]), cut_small=True)
    assert all(len(block) > 128 for block in tiny[:-1])


@given(text=st.lists(st.sampled_from(["a", "bc", " ", "\n", "\r\n", "\r", "é"])).map("".join))
def test_lines_keep_their_ends(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(text.encode())
    lines = texts(path, document="line")
    assert b"".join(lines) == text.encode()
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines[:-1])


def test_lines_do_not_break_where_the_first_mebibyte_ends(write: Write) -> None:
    lines = [b"%06d" % number + b"x" * (number % 90) + b"\n" for number in range(30_000)]
    assert texts(write("a.txt", b"".join(lines)), document="line") == lines


def test_a_line_of_a_million_equal_characters(write: Write) -> None:
    """Fault 4: one line of a million equal characters."""
    lines = [b"before\n", b"x" * 3_000_000 + b"\n", b"after"]
    assert texts(write("a.txt", b"".join(lines)), document="line") == lines


def test_wikitext_is_read_by_lines(write: Write) -> None:
    wikitext = b" \n = Title = \n \n A 17th @-@ century house .\n"
    assert texts(write("a.txt", wikitext)) == [b" \n", b" = Title = \n", b" \n", b" A 17th @-@ century house .\n"]
    assert texts(write("a.txt", wikitext), document="file") == [wikitext]
    plain = b"one\ntwo\n"
    assert texts(write("b.txt", plain)) == [plain]
    assert texts(write("b.txt", plain), clean="wikitext") == [b"one\n", b"two\n"]


def test_a_byte_order_mark_is_removed_but_counted_in_positions(write: Write) -> None:
    """Fault 11: a BOM at the beginning of a file. Elsewhere it is a character."""
    reading = Reading("strict")
    path = write("a.txt", BOM + b"one\n" + BOM + b"two\n")
    assert rows(path, document="line", reading=reading) == [(b"one\n", 3), (BOM + b"two\n", 7)]
    assert reading.counts.with_bom == 1
    record = b'{"text": "one"}\n'
    assert texts(write("a.jsonl", BOM + record + record), reading=reading) == [b"one", b"one"]
    assert reading.counts.with_bom == 2


# --- .jsonl


@given(values=st.lists(st.text()), ascii_only=st.booleans())
def test_jsonl_gives_the_text_field(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    lines = [json.dumps({"id": 1, "body": value}, ensure_ascii=ascii_only) + "\n" for value in values]
    path.write_text("\n".join(lines), "utf-8")  # blank lines are ignored
    assert texts(path, text_field="body") == [value.encode() for value in values]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "cut', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["text"]', "a JSON list, not an object"),
        ('{"text": null}', "a JSON null, not a string"),
        ('{"text": ["a"]}', "a JSON list, not a string"),
        ('{"body": "a", "id": 7}', "no field 'text'; it has 'body', 'id'"),
        (r'{"text": "half \ud83c"}', r"lone surrogate \(\\ud83c\)"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_or_skipped_and_counted(write: Write, line: str, words: str) -> None:
    """Faults 9 and 11: a bad JSONL line, a missing field, a lone surrogate."""
    path = write("a.jsonl", f'{{"text": "good"}}\n{line}\n{{"text": "also good"}}\n')
    with pytest.raises(InputError, match=words) as error:
        rows(path)
    assert error.value.where == f"{path}, line 2"
    skipping = Reading("skip")
    assert texts(path, errors="skip", reading=skipping) == [b"good", b"also good"]
    assert skipping.counts.dropped_bad == 1


@pytest.mark.parametrize(
    ("field", "line", "text"),
    [
        ("text", '{"text": "one", "text": "two"}', None),
        ("text", '{"text": 1, "id": 2, "text": "two"}', None),
        ("é", '{"é": "one", "\\u00e9": "two"}', None),
        ("text", '{"text": "text", "id": "text"}', b"text"),
        ("text", '{"meta": {"text": "a", "x": [{"text": "b"}]}, "text": "one"}', b"one"),
        ("text", '{"id": 1, "text": "one", "id": 2}', b"one"),
    ],
)
def test_two_text_fields_in_one_line_are_refused(write: Write, field: str, line: str, text: bytes | None) -> None:
    """Fault 9: as with two columns of a table. Names of other fields and of nested fields do not matter."""
    path = write("a.jsonl", line)
    if text is not None:
        assert texts(path, text_field=field) == [text]
        return
    with pytest.raises(InputError, match=f"has 2 fields named '{field}'") as error:
        rows(path, text_field=field)
    assert error.value.where == f"{path}, line 1"
    assert texts(path, text_field=field, errors="skip") == []


def test_a_line_that_is_not_utf8_is_refused_with_its_byte(write: Write) -> None:
    """Fault 8: invalid UTF-8: file and byte offset."""
    path = write("a.jsonl", b'{"text": "good"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match="byte 0xFF") as error:
        rows(path)
    assert error.value.where == f"{path}, byte 27 (line 2)"
    replacing = Reading("replace")
    assert texts(path, errors="replace", reading=replacing) == [b"good", b"\xff"]  # replaced where it is decoded


def test_a_lone_surrogate_can_be_replaced_and_a_pair_is_a_character(write: Write) -> None:
    """Fault 11: lone surrogates."""
    path = write("a.jsonl", r'{"text": "\ud83c\udf30 \ud83c"}')
    assert texts(path, errors="replace") == ["\U0001f330 ".encode() + b"\xff"]


# --- .parquet


def parquet(path: Path, column: pa.Array, name: str = "text", **options: Any) -> Path:
    pq.write_table(pa.table({name: column, "id": list(range(len(column)))}), path, **options)
    return path


TEXT_KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]


@pytest.mark.parametrize("kind", TEXT_KINDS, ids=str)
def test_parquet_gives_the_text_column(tmp_path: Path, kind: pa.DataType) -> None:
    values = [f"row {number % 100} é" for number in range(3_000)]
    path = parquet(tmp_path / "a.parquet", pa.array(values).cast(kind), row_group_size=1_100)
    reader = file_reader(TextFile.at(path), DataConfig(), Reading("strict"))
    assert list(reader.rows()) == [(value.encode(), number) for number, value in enumerate(values, 1)]
    assert reader.bytes_read == path.stat().st_size


NO_TEXT = [pa.array([1]), pa.array([1.5]), pa.array([True]), pa.array([["a"]]), pa.array([{"a": "b"}])]


@pytest.mark.parametrize("column", NO_TEXT, ids=lambda column: str(column.type))
def test_columns_of_other_types_are_refused(tmp_path: Path, column: pa.Array) -> None:
    """Fault 9: a column of numbers is not converted to text."""
    with pytest.raises(InputError, match="not text") as error:
        rows(parquet(tmp_path / "a.parquet", column))
    assert "data.text_field" in error.value.fix


def test_a_bad_value_is_refused_with_its_row_and_without_advice_on_encodings(tmp_path: Path) -> None:
    """Fault 8: tables are UTF-8; data.encoding would change nothing."""
    path = parquet(tmp_path / "a.parquet", pa.array([b"good", b"caf\xe9"], pa.binary()))
    data = DataConfig()
    with pytest.raises(InputError, match=r"byte 0xE9.*1 of 4, 25.00%") as error:
        list(Corpus([TextFile.at(path)], data).documents(Reading("strict"), rows=Reading("strict")))
    assert error.value.where == f"{path}, row 2, byte 3 of its text"
    assert "encoding" not in error.value.fix


def test_columns_that_are_not_read_are_remembered(tmp_path: Path, write: Write) -> None:
    reading = Reading("strict")
    path = write("a.jsonl", '{"text": "a"}\n{"text": "b", "label": 1}\n{"label": 2, "text": "c", "id": 3}\n')
    assert texts(path, reading=reading) == [b"a", b"b", b"c"]
    assert reading.ignored == {"label": str(path), "id": str(path)}
    table = parquet(tmp_path / "a.parquet", pa.array(["a"]))
    reading = Reading("strict")
    assert texts(table, reading=reading) == [b"a"]
    assert reading.ignored == {"id": str(table)}


def test_lines_of_json_in_another_encoding(write: Write) -> None:
    """Fault 8: the reported byte is that of the file, even after conversion to UTF-8."""
    lines = '{"text": "élève"}\n{"text": "crème"}\n'
    assert texts(write("a.jsonl", lines.encode("utf-16")), encoding="utf-16") == ["élève".encode(), "crème".encode()]
    path = write("b.jsonl", lines.encode("cp1252") + b'{"text": "\x81"}\n')
    with pytest.raises(InputError, match="not cp1252: byte 0x81") as error:
        rows(path, encoding="cp1252")
    assert error.value.where == f"{path}, byte {len(lines) + 10} (line 3)"


def test_parquet_without_the_column_is_refused_with_the_existing_ones(tmp_path: Path) -> None:
    """Fault 9: a missing field; the existing fields are listed."""
    path = parquet(tmp_path / "a.parquet", pa.array(["a"]), name="body")
    with pytest.raises(InputError, match="no column 'text'; it has 'body', 'id'") as error:
        rows(path)
    assert "data.text_field" in error.value.fix
    with pytest.raises(InputError, match="the column 'id' contains int64, not text".capitalize()):
        rows(path, text_field="id")


@pytest.mark.parametrize("kind", ["string", "dictionary<values=string, indices=int32, ordered=0>"])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_dot_in_a_column_name_does_not_mean_a_field(tmp_path: Path, flipped: bool, kind: str) -> None:
    flat = pa.array(["flat"] * 3)
    if kind != "string":
        flat = flat.dictionary_encode()
    columns = {"a.b": flat, "a": pa.array([{"b": "inner", "c": 1}] * 3), "a.b.c": pa.array(["longer"] * 3)}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(dict(reversed(columns.items())) if flipped else columns), path)
    assert texts(path, text_field="a.b") == [b"flat"] * 3
    assert texts(path, text_field="a.b.c") == [b"longer"] * 3


def test_fields_of_a_struct_are_not_columns(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", pa.array([{"b": "inner"}]), name="a")
    with pytest.raises(InputError, match=r"no column 'a.b'; it has 'a', 'id'"):
        rows(path, text_field="a.b")
    with pytest.raises(InputError, match="column 'a' contains struct<b: string>, not text"):
        rows(path, text_field="a")


def test_two_text_columns_are_refused(tmp_path: Path) -> None:
    """Fault 9: only the user can know which of them is the text."""
    table = pa.Table.from_arrays([pa.array(["one"]), pa.array(["two"]), pa.array(["x"])], names=["text", "text", "id"])
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    with pytest.raises(InputError, match="There are 2 columns named 'text'") as error:
        rows(path)
    assert error.value.where == str(path)
    assert "rename" in error.value.fix
    assert texts(path, text_field="id") == [b"x"]  # other columns may have equal names


def test_null_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", pa.array(["a", None, "b"]))
    with pytest.raises(InputError, match="null") as error:
        rows(path)
    assert error.value.where == f"{path}, row 2"
    assert texts(path, errors="skip") == [b"a", b"b"]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_parquet_is_refused(tmp_path: Path, kept: float) -> None:
    """Fault 10: a truncated parquet file; file and offset are reported."""
    path = parquet(tmp_path / "a.parquet", pa.array([f"row {number}" for number in range(1_000)]))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match="truncated or damaged") as error:
        rows(path)
    assert error.value.where == f"{path}, after row 0 ({int(kept * len(whole)):,} bytes)"


def test_a_flipped_bit_in_parquet_is_found(tmp_path: Path) -> None:
    """Fault 10: damage inside a file that has checksums."""
    values = pa.array([f"row {number}" for number in range(4_000)])
    path = parquet(tmp_path / "a.parquet", values, row_group_size=2_000, write_page_checksum=True, use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset + 1_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="truncated or damaged") as error:
        rows(path)
    assert "after row 1024" in error.value.where  # the batch that ends before the damaged row group


def test_a_damaged_name_of_a_column_in_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"], "sentence": ["b"]}), path)
    path.write_bytes(path.read_bytes().replace(b"sentence", b"sent\xffnce"))
    with pytest.raises(InputError, match="truncated or damaged"):
        texts(path)
