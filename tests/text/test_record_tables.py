from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.examples import Record, Unusable
from acorn.text.reading import Reading
from acorn.text.record_readers import REPEATED
from acorn.text.records import open_records, read_records
from acorn.text.text_files import EXAMPLES, TextFile

CHAT = [{"role": "user", "content": "Hi", "tools": None}, {"role": "assistant", "content": "Hello", "tools": None}]


def values(path: Path, reading: Reading | None = None, **settings: Any) -> list[dict[str, Any]]:
    data = DataConfig(**settings)
    reader = open_records(TextFile.at(path, path.name, endings=EXAMPLES), data, reading or Reading(data.errors))
    rows = list(reader.records())
    assert reader.bytes_read
    assert [row.where for row in rows] == [f"{path.name}, row {number}" for number in range(1, len(rows) + 1)]
    return [dict(row.values) for row in rows if isinstance(row, Record)]


def test_parquet_gives_rows_as_python_has_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", None]).dictionary_encode(),
            "label": pa.array([1, 2], pa.uint8()),
            "score": [0.5, float("inf")],
            "messages": [CHAT, []],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    assert values(tmp_path / "a.parquet") == [
        {"text": "a", "label": 1, "score": 0.5, "messages": CHAT},
        {"text": None, "label": 2, "score": float("inf"), "messages": []},
    ]


def test_many_rows_keep_their_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(5_000)}), tmp_path / "a.parquet", row_group_size=700)
    assert [row["a"] for row in values(tmp_path / "a.parquet")] == list(range(5_000))


def not_text(values: list[bytes]) -> pa.Array:
    """A column that says it is text, and holds these bytes."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values).buffers())


@pytest.mark.parametrize("errors", ["strict", "skip", "replace"])
def test_bytes_that_are_not_text_spoil_their_value_alone(tmp_path: Path, errors: str) -> None:
    column = not_text([b"caf\xe9", b"fine"])
    nested = pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.StructArray.from_arrays([column], ["content"]))
    pq.write_table(pa.table({"text": column, "messages": nested, "label": [1, 2]}), tmp_path / "a.parquet")
    reading = Reading(errors)
    bad, good = values(tmp_path / "a.parquet", reading, errors=errors)
    assert good == {"text": "fine", "messages": [{"content": "fine"}], "label": 2}
    assert bad["label"] == 1
    if errors == "replace":
        assert bad["text"] == bad["messages"][0]["content"] == "caf\ufffd"
        assert reading.counts.replaced == 2
    else:
        assert isinstance(bad["text"], Unusable)
        assert isinstance(bad["messages"][0]["content"], Unusable)


def test_a_column_that_python_cannot_hold_spoils_no_other(tmp_path: Path) -> None:
    times = pa.array([2**50], pa.timestamp("s"))  # years beyond 9999
    pq.write_table(pa.table({"text": ["a"], "when": times}), tmp_path / "a.parquet", version="2.6")
    (row,) = values(tmp_path / "a.parquet")
    assert row["text"] == "a"
    assert isinstance(row["when"], Unusable)
    pq.write_table(pa.table({"when": [datetime.date(2026, 1, 2)]}), tmp_path / "b.parquet")
    assert values(tmp_path / "b.parquet") == [{"when": datetime.date(2026, 1, 2)}]


def test_a_column_that_comes_twice_has_no_value(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["text", "label", "text"]), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [{"text": REPEATED, "label": "b"}]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"] * 1_000}), path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="cut short or damaged"):
        values(path, errors="skip")


def test_a_damaged_name_of_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"sentence": ["a"]}), path)
    path.write_bytes(path.read_bytes().replace(b"sentence", b"sent\xffnce"))
    with pytest.raises(InputError, match="cut short or damaged"):
        values(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset in the Hub's layout, as its own library writes it: classes and lists of classes have names."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["ham", "spam"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
            "messages": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
        }
    )
    chat = [{key: message[key] for key in ("role", "content")} for message in CHAT]
    for split, texts in (("train", ["a", "b", "c"]), ("test", ["d"])):
        columns = {
            "text": texts,
            "label": [1, 0, -1][: len(texts)],
            "tags": [[0, 1]] * len(texts),
            "messages": [chat] * len(texts),
        }
        datasets.Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / f"{split}.parquet"))
    return tmp_path


def test_classes_have_the_names_that_a_dataset_gives_them(folder: Path) -> None:
    rows = values(folder / "train.parquet")
    assert [row["label"] for row in rows] == ["spam", "ham", None]
    assert rows[0]["tags"] == ["O", "B-PER"]
    data = DataConfig()
    (row,) = read_records([f"hf:{folder}"], data)  # held-out rows, where there are any
    assert isinstance(row, Record)
    assert row.where == f"hf:{folder}, split test, row 1"
    assert row.values["label"] == "spam"
    assert [message["content"] for message in row.values["messages"]] == ["Hi", "Hello"]


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}'])
def test_strange_metadata_name_no_classes(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"label": [0, 1]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [{"label": 0}, {"label": 1}]
