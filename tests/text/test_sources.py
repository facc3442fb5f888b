from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acorn.config import DataConfig
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET
from acorn.text.sources import merged, resolve
from acorn.text.text_files import TextFile

Write = Callable[[str, bytes | str], Path]


def found(*sources: str, **settings: Any) -> list[str]:
    """Names of the training files, in the order they are read."""
    parts = merged(resolve(sources, DataConfig(**settings), "data.source", QUIET))["train"]
    assert all(isinstance(part, TextFile) for part in parts)
    return [part.name for part in parts]


@pytest.fixture
def tree(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.txt", "a.txt", "c.jsonl", "notes.md", "deep/d.txt", "deep/er/e.txt.gz", ".hidden/h.txt", ".h.txt"):
        write(name, "text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("a.txt", ["a.txt"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[bc].*", ["b.txt", "c.jsonl"]),
        ("**/*.txt", ["a.txt", "b.txt", "deep/d.txt"]),
        ("**", ["a.txt", "b.txt", "c.jsonl", "deep/d.txt", "deep/er/e.txt.gz"]),
        ("deep/**/*.gz", ["deep/er/e.txt.gz"]),
        ("*/*", ["deep/d.txt"]),
        ("deep", ["deep/d.txt", "deep/er/e.txt.gz"]),
        ("./deep/", ["deep/d.txt", "deep/er/e.txt.gz"]),
        (".", ["a.txt", "b.txt", "c.jsonl", "deep/d.txt", "deep/er/e.txt.gz"]),
        (".hidden/*.txt", [".hidden/h.txt"]),
    ],
)
def test_files_globs_and_folders(tree: Path, source: str, files: list[str]) -> None:
    assert found(source) == files
    assert found(str(tree / source)) == [str(tree / file) for file in files]


def test_a_file_named_twice_is_read_once(tree: Path) -> None:
    (tree / "link.txt").symlink_to("a.txt")
    assert found("b.txt", "*.txt", "./a.txt") == ["b.txt", "a.txt"]


def test_a_name_with_wildcard_characters_is_that_file(write: Write, tree: Path) -> None:
    write("a[1].txt", "text")
    write("a1.txt", "text")
    assert found("a[1].txt") == ["a[1].txt"]


def test_linked_folders_are_entered_once_and_loops_end(tree: Path) -> None:
    """Fault 12: a symlink loop, among folders."""
    (tree / "deep" / "loop").symlink_to(tree)
    (tree / "deep" / "er" / "loop").symlink_to(tree / "deep")
    assert found(".") == ["a.txt", "b.txt", "c.jsonl", "deep/d.txt", "deep/er/e.txt.gz"]
    assert found("**/*.txt") == ["a.txt", "b.txt", "deep/d.txt"]


def test_a_pipe_in_a_folder_of_text_is_refused(tree: Path) -> None:
    """Fault 12: a FIFO where a file is expected."""
    os.mkfifo(tree / "deep" / "pipe.txt")
    with pytest.raises(InputError, match="named pipe"):
        found("deep")


@pytest.mark.parametrize("source", ["gone.txt", "gone/*.txt", "*.parquet", "notes.md", "*.md", "gone*"])
def test_a_source_that_matches_no_text_is_refused_and_the_offline_text_named(tree: Path, source: str) -> None:
    """Fault 15: a source that matches no file."""
    with pytest.raises(InputError, match=r"no file|no text file|ending") as error:
        found("a.txt", source)
    assert source in str(error.value)
    if source != "notes.md":
        assert "bundled:wikitext-2" in error.value.mend


def test_files_that_are_not_text_are_said_to_be_left_out(tree: Path, listener: Any) -> None:
    resolve(["."], DataConfig(), "data.source", listener)
    assert listener.notes == [".: 1 of 6 files are not read; their endings are not of text."]


@pytest.mark.parametrize("source", ["bundled:wikitext-3", "bundled:"])
def test_an_unknown_bundled_text_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="no bundled text") as error:
        found(source)
    assert "bundled:wikitext-2" in error.value.mend


def test_no_source_at_all() -> None:
    with pytest.raises(UsageError) as error:
        found()
    assert error.value.where == "data.source"


@pytest.mark.parametrize(("source", "document"), [("a.txt", "row"), ("c.jsonl", "line"), ("c.jsonl", "file")])
def test_a_document_that_the_file_does_not_have_is_refused(tree: Path, source: str, document: str) -> None:
    with pytest.raises(UsageError, match=r"rows") as error:
        found(source, document=document)
    assert f'{source} with data.document = "{document}"' == error.value.where


def test_the_bundled_text_brings_its_own_splits() -> None:
    (splits,) = resolve(["bundled:wikitext-2"], DataConfig(), "data.source", QUIET)
    assert {split: [part.name for part in parts] for split, parts in splits.items()} == {
        split: [f"bundled:wikitext-2 ({split})"] for split in ("train", "valid", "test")
    }
