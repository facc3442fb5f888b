from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acorn.config import DataConfig
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET
from acorn.text.examples import Record
from acorn.text.records import read_records
from acorn.text.sources import merged, resolve
from acorn.text.text_files import TextFile

Write = Callable[[str, bytes | str], Path]


def read(*sources: Path | str, progress: Any = None, **settings: Any) -> list[dict[str, Any]]:
    listener = {"progress": progress} if progress else {}
    rows = read_records([*map(str, sources)], DataConfig(**settings), **listener)
    return [dict(row.values) for row in rows if isinstance(row, Record)]


def test_a_folder_gives_the_rows_of_its_files_in_order(
    write: Write, tmp_path: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("rows/b.csv", "a\n2\n")
    write("rows/a.jsonl", '{"a": 1}\n')
    write("rows/deep/c.JSON", '[{"a": 3}]')
    write("rows/readme.md", "# Rows\n")
    write("rows/notes.txt", "not read here\n")
    monkeypatch.chdir(tmp_path)
    assert read("rows", progress=listener) == [{"a": 1}, {"a": "2"}, {"a": 3}]
    assert listener.notes == [
        "rows: 2 of 5 files are not read because of their endings (.txt 1, .md 1): rows/notes.txt, rows/readme.md."
    ]
    assert read("rows/*.csv", "rows/b.csv") == [{"a": "2"}]  # a file named twice is read once


def test_progress_is_of_bytes_on_disk(write: Write, listener: Any) -> None:
    paths = [write(f"{n}.jsonl", "".join(json.dumps({"a": n}) + "\n" for n in range(1_000))) for n in range(2)]
    read(*paths, progress=listener)
    total = sum(path.stat().st_size for path in paths)
    assert listener.steps[-1] == ("reading rows", total, total)
    done = [step[1] for step in listener.steps]
    assert done == sorted(done)
    assert listener.ended == ["reading rows"]


def test_what_is_no_table_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"its ending is not that of a table format") as error:
        read(write("a.txt", "text"))
    assert ".csv" in error.value.fix
    with pytest.raises(UsageError, match="is text, not a table"):
        read("bundled:wikitext-2")
    with pytest.raises(InputError, match="matches no table file") as error:
        read(write("only/a.txt", "text").parent)
    assert "bundled" not in error.value.fix
    with pytest.raises(UsageError, match="No table is named") as usage:
        read()
    assert usage.value.where == "--input"
    with pytest.raises(InputError, match="There is no file or folder") as error:
        read("absent.csv")
    assert "bundled" not in error.value.fix


def test_rows_are_tables_whatever_documents_are(write: Write) -> None:
    """`data.document` is of text to pretrain on."""
    assert read(write("a.jsonl", '{"a": 1}\n'), document="line") == [{"a": 1}]


def test_as_text_to_pretrain_on_a_csv_is_still_plain_text(write: Write) -> None:
    (part,) = merged(resolve([str(write("a.csv", "a\n1\n"))], DataConfig(), "data.source", QUIET))["train"]
    assert isinstance(part, TextFile)
    assert part.form == "txt"
