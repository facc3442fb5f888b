"""The record of what a run was made from, and of where its prepared shards are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from acorn.data.made_from import (
    MadeFrom,
    prepared_shards,
    read_made_from,
    shards_folder,
    write_made_from,
)
from acorn.errors import DamageError
from acorn.run_folder import RunFolder
from acorn.text.file_records import FileRecord


def make_shards(folder: Path, content: str = "these") -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that was started in project/ with data.shards=shards."""
    project = tmp_path / "project"
    shards = make_shards(project / "shards")
    monkeypatch.chdir(project)
    run = RunFolder(project / "runs" / "a")
    run.root.mkdir(parents=True)
    write_made_from(run, MadeFrom(shards=prepared_shards(run, Path("shards"))))
    assert read_made_from(run).shards.folder == str(shards)
    return run


def test_it_reads_back_as_it_was(tmp_path: Path) -> None:
    """File names that are not UTF-8 included."""
    run = RunFolder(tmp_path)
    record = FileRecord("/text/caf\udce9.txt", 3, 2**61, "sha256:ab")
    made_from = MadeFrom({"train": [record, record], "valid": []}, [record], [record], None)
    write_made_from(run, made_from)
    assert read_made_from(run) == made_from


def test_a_run_of_an_earlier_version_has_no_record(tmp_path: Path) -> None:
    assert read_made_from(RunFolder(tmp_path)) is None


@pytest.mark.parametrize("damage", ["sealed", "form", "JSON"])
def test_a_damaged_record_is_reported(run: RunFolder, damage: str) -> None:
    text = run.sources.read_text()
    run.sources.write_text({"sealed": text.replace("shards", "shardz"), "form": "{}", "JSON": text[:-5]}[damage])
    with pytest.raises(DamageError) as caught:
        read_made_from(run)
    assert caught.value.where == str(run.sources)
    assert "remove it" in caught.value.fix


def test_without_a_pointer_the_runs_own_shards_are_used(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    make_shards(run.data)
    assert shards_folder(run, "") == run.data


def test_the_folder_is_found_from_any_current_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = tmp_path / "project" / "shards"
    assert shards_folder(run, "shards") == shards
    make_shards(tmp_path / "shards", "others")  # a search from the current folder would find these
    monkeypatch.chdir(tmp_path)
    assert shards_folder(run, "shards") == shards


def test_the_folder_is_found_after_run_and_shards_were_moved_together(run: RunFolder, tmp_path: Path) -> None:
    shutil.move(tmp_path / "project", tmp_path / "moved")
    found = shards_folder(RunFolder(tmp_path / "moved" / "runs" / "a"), "shards")
    assert found.samefile(tmp_path / "moved" / "shards")


def test_the_recorded_shards_are_preferred_to_others_in_their_place(run: RunFolder, tmp_path: Path) -> None:
    shutil.move(tmp_path / "project" / "shards", run.root / "shards")
    make_shards(tmp_path / "project" / "shards", "others")
    assert shards_folder(run, "shards") == run.root / "shards"


def test_without_a_record_the_current_folder_and_the_run_are_searched(
    run: RunFolder, tmp_path: Path, monkeypatch
) -> None:
    """The current folder first. If there are no shards anywhere, the error names the first place."""
    run.sources.unlink()
    assert shards_folder(run, "shards").samefile(tmp_path / "project" / "shards")
    monkeypatch.chdir(tmp_path)
    assert shards_folder(run, "shards") == Path("shards")
    make_shards(run.root / "shards")
    assert shards_folder(run, "shards") == run.root / "shards"
