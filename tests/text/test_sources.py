from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acorn.config import Config, DataConfig
from acorn.config_files import to_toml
from acorn.errors import InputError, UsageError
from acorn.progress import QUIET
from acorn.text.sources import merged, resolve
from acorn.text.text_files import TextFile

Write = Callable[[str, bytes | str], Path]


def found(*sources: str, **settings: Any) -> list[str]:
    """Names of the training files, in reading order."""
    parts = merged(resolve(sources, DataConfig(**settings), "data.source", QUIET))["train"]
    assert all(isinstance(part, TextFile) for part in parts)
    return [part.name for part in parts]


@pytest.fixture
def tree(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.txt", "a.txt", "c.jsonl", "notes.doc", "deep/d.txt", "deep/er/e.txt.gz", ".hidden/h.txt", ".h.txt"):
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


@pytest.mark.parametrize("sources", [("",), ("", "a.txt"), ("a.txt", "")])
def test_an_empty_string_is_not_the_current_folder(tree: Path, sources: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="An empty string names no text"):
        resolve(sources, DataConfig(), "--input", QUIET)


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


@pytest.mark.parametrize("source", ["gone.txt", "gone/*.txt", "*.parquet", "notes.doc", "*.doc", "gone*"])
def test_a_source_without_text_is_refused_and_the_bundled_text_named(tree: Path, source: str) -> None:
    """Fault 15: a source that matches no file."""
    with pytest.raises(InputError, match=r"no file|no text file|ending") as error:
        found("a.txt", source)
    assert source in str(error.value)
    if source != "notes.doc":
        assert "bundled:wikitext-2" in error.value.fix


def test_files_that_are_not_text_are_noted(tree: Path, listener: Any) -> None:
    resolve(["."], DataConfig(), "data.source", listener)
    assert listener.notes == [".: 1 of 6 files are not read because of their endings (.doc 1): notes.doc."]


def test_files_that_are_not_read_are_listed_with_their_endings(write: Write, tree: Path, listener: Any) -> None:
    for name in ("a.png", "b.png", "c.PNG", "Makefile", "deep/x.pdf"):
        write(name, "x")
    resolve(["."], DataConfig(), "data.source", listener)
    assert listener.notes == [
        ".: 6 of 11 files are not read because of their endings (.png 3, no ending 1, .pdf 1, .doc 1): "
        "Makefile, a.png, b.png, c.PNG, deep/x.pdf, notes.doc."
    ]


@pytest.mark.parametrize("source", ["book", "book/*", "book/a.md"])
def test_markup_is_read_as_plain_text_with_a_note(write: Write, tree: Path, listener: Any, source: str) -> None:
    content = {"a.md": "# Title", "b.csv": "x,y\n1,2", "c.tsv": "x\ty", "d.html": "<p>x", "e.htm.gz": "", "f.txt": "x"}
    for name, text in content.items():
        write(f"book/{name}", text)
    parts = merged(resolve([source], DataConfig(), "data.source", listener))["train"]
    assert {part.form for part in parts if isinstance(part, TextFile)} == {"txt"}
    assert [part.name for part in parts] == (
        [source] if source == "book/a.md" else [f"book/{name}" for name in content]
    )
    listed = "1 .md" if source == "book/a.md" else "1 .csv, 1 .htm.gz, 1 .html, 1 .md, 1 .tsv"
    assert listener.notes == [f"{source}: read as plain text, including markup and separators: {listed}."]


# --- folders that are not text


@pytest.fixture
def run_within(write: Write, tree: Path) -> Path:
    """A run folder, with model and token shards, inside the folder of text."""
    write("runs/1/config.toml", to_toml(Config()))
    write("runs/1/samples.jsonl", '{"text": "drawn"}')
    write("runs/1/final/config.json", '{"model_type": "qwen3"}')
    write("runs/1/final/README.md", "card")
    for name in ("manifest.json", "tokenizer.json", "train-00000.bin"):
        write(f"shards/{name}", "{}")
    return tree


TEXTS = ["a.txt", "b.txt", "c.jsonl", "deep/d.txt", "deep/er/e.txt.gz"]


def test_runs_and_models_among_the_text_are_skipped_with_a_note(run_within: Path, listener: Any, write: Write) -> None:
    write("runs/2/half.txt", "x")
    parts = merged(resolve(["."], DataConfig(), "data.source", listener, Path("runs/2")))["train"]
    assert [part.name for part in parts] == TEXTS
    assert listener.notes[0] == (
        ".: skipped, because it is not your text: 1 run folder (runs/1), 1 folder of this run (--out) (runs/2), "
        "1 folder of token shards (shards)."
    )
    assert found("**/*") == [*TEXTS, "runs/2/half.txt"]
    assert found("runs/1/samples.jsonl") == ["runs/1/samples.jsonl"]  # a file that is named is read


@pytest.mark.parametrize(
    ("source", "kind", "hint"),
    [
        ("runs/1", "run folder", "name a folder of text"),
        ("runs/1/", "run folder", "name a folder of text"),
        ("runs/1/final", "model folder", "name a folder of text"),
        ("shards", "folder of token shards", "data.shards"),
    ],
)
def test_a_run_or_model_named_as_text_is_refused(run_within: Path, source: str, kind: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"{source!r} is a {kind}, not text") as error:
        found(source)
    assert hint in error.value.fix
    assert error.value.where == str(run_within / source)


def test_the_folder_of_the_run_named_as_text_is_refused(tree: Path) -> None:
    with pytest.raises(InputError, match="folder of this run") as error:
        resolve(["deep"], DataConfig(), "data.source", QUIET, tree / "deep")
    assert "a separate folder" in error.value.fix
    assert resolve(["deep/*.txt"], DataConfig(), "data.source", QUIET, tree / "deep")


def test_a_source_with_only_skipped_folders_is_refused(run_within: Path) -> None:
    with pytest.raises(InputError, match=r"matches no text file; skipped: 1 run folder \(runs/1\)"):
        found("runs")


# --- encodings


def test_a_named_encoding_applies_to_text_files_only(write: Write, tree: Path, listener: Any) -> None:
    write("t.parquet", "")
    data = DataConfig(encoding="latin-1")
    encodings = {}
    for source in ("a.txt", "c.jsonl", "t.parquet", "bundled:wikitext-2"):
        (part, *_) = merged(resolve([source], data, "data.source", listener))["train"]
        assert isinstance(part, TextFile)
        encodings[source] = part.encoding
    assert encodings == {
        "a.txt": "iso8859-1",
        "c.jsonl": "iso8859-1",
        "t.parquet": "utf-8",
        "bundled:wikitext-2": "utf-8",
    }
    assert [note.split(":")[0] for note in listener.notes] == ["t.parquet", "bundled"]
    assert all("data.encoding = iso8859-1 applies to text files only" in note for note in listener.notes)


@pytest.mark.parametrize("source", ["bundled:wikitext-3", "bundled:"])
def test_an_unknown_bundled_text_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="no bundled text") as error:
        found(source)
    assert "bundled:wikitext-2" in error.value.fix


def test_no_source_at_all() -> None:
    with pytest.raises(UsageError) as error:
        found()
    assert error.value.where == "data.source"


@pytest.mark.parametrize(("source", "document"), [("a.txt", "row"), ("c.jsonl", "line"), ("c.jsonl", "file")])
def test_a_unit_that_does_not_fit_the_file_is_refused(tree: Path, source: str, document: str) -> None:
    with pytest.raises(UsageError, match=r"rows") as error:
        found(source, document=document)
    assert f'{source} with data.document = "{document}"' == error.value.where


def test_the_bundled_text_has_its_own_splits() -> None:
    (splits,) = resolve(["bundled:wikitext-2"], DataConfig(), "data.source", QUIET)
    assert {split: [part.name for part in parts] for split, parts in splits.items()} == {
        split: [f"bundled:wikitext-2 ({split})"] for split in ("train", "valid", "test")
    }
