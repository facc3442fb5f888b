"""How the relative paths of a run are resolved."""

from __future__ import annotations

from pathlib import Path

import pytest

from acorn.config_files import load_config
from acorn.data.made_from import MadeFrom, StartFolder
from acorn.errors import InputError
from acorn.progress import QUIET
from acorn.run.start_folder import config_from, first_there, moved_to, open_text, path_from, start_folders
from acorn.run_folder import RunFolder
from acorn.text.file_records import FileRecord


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two texts, whose name looks like a glob pattern. It is not the current folder."""
    folder = tmp_path / "my [old] texts"
    (folder / "corpus").mkdir(parents=True)
    for name in ("one", "two"):
        (folder / "corpus" / f"{name}.txt").write_text(f"A line of {name}.\n" * 40)
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    return folder


@pytest.mark.parametrize(
    "path", ["", "/abs/a.txt", "~/a.txt", "bundled:wikitext-2", "hf:owner/name", "hf:owner/name:config"]
)
def test_other_values_than_relative_paths_are_unchanged(home: Path, path: str) -> None:
    assert path_from(home, path) == path


def test_relative_paths_are_made_absolute(home: Path) -> None:
    assert path_from(home, "corpus/one.txt") == str(home / "corpus" / "one.txt")
    assert path_from(home, "hf:corpus:small") == f"hf:{home}/corpus:small"
    config = load_config("small", ["data.source=corpus/*.txt", "tokenizer.path=t.json", "train.init_from=runs/a"])
    found = config_from(config, home)
    assert (found.tokenizer.path, found.train.init_from) == (str(home / "t.json"), str(home / "runs/a"))
    assert config_from(config, Path.cwd()) is config
    texts, folder = open_text(config, RunFolder(home / "r"), [Path.cwd(), home], QUIET)
    assert folder == home
    assert [part.name for part in texts.parts["train"]] == [str(home / f"corpus/{name}.txt") for name in ("one", "two")]


def test_the_error_of_the_first_folder_is_raised(home: Path) -> None:
    config = load_config("small", ["data.source=none.txt"])
    with pytest.raises(InputError) as caught:
        open_text(config, RunFolder(home / "r"), [home, Path.cwd()], QUIET)
    assert caught.value.where == str(home / "none.txt")


def test_the_folders_that_are_searched(home: Path, tmp_path: Path) -> None:
    run = RunFolder(home / "runs" / "r")
    known = MadeFrom(start=StartFolder.of(home, run))
    assert start_folders(run, None, named_now=False) == [Path.cwd()]
    assert start_folders(run, known, named_now=False) == [home]
    assert start_folders(run, known, named_now=True) == [Path.cwd(), home]
    moved = home.rename(tmp_path / "moved")
    assert start_folders(RunFolder(moved / "runs" / "r"), known, named_now=False) == [home, moved]
    assert first_there("corpus/one.txt", [home, moved]) == str(moved / "corpus" / "one.txt")
    record = FileRecord(str(home / "corpus" / "one.txt"), 1, 2, "sha256:0")
    assert moved_to(moved, known, record).name == str(moved / "corpus" / "one.txt")
    outside = FileRecord(str(tmp_path / "else.txt"), 1, 2, "sha256:0")
    assert moved_to(moved, known, outside) == outside
