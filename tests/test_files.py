"""Durable writes: the old or the new, never a mixture."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from acorn import files
from acorn.errors import DamageError, ResourceError, UsageError
from acorn.files import (
    FolderLock,
    new_folder,
    read_json,
    readable,
    settle,
    verify_folder,
    write_file,
    write_json,
)


def make(path, text: str, **options) -> None:
    with new_folder(path, **options) as folder:
        (folder / "a.txt").write_text(text)


def test_write_file_replaces_whole(tmp_path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    write_file(path, "one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call: str) -> None:
    """Rows 6 and 34."""
    path = tmp_path / "file.txt"
    write_file(path, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ResourceError, match="disk is full") as caught:
        write_file(path, "new")
    assert "3 bytes were needed" in str(caught.value)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_new_folder_has_a_manifest(tmp_path) -> None:
    make(tmp_path / "x", "hello", extra={"format": "test"})
    manifest = read_json(tmp_path / "x" / "manifest.json")
    assert manifest["format"] == "test"
    assert manifest["files"]["a.txt"]["bytes"] == 5
    # SHA-256 of "hello", as sha256sum prints it
    assert manifest["files"]["a.txt"]["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert verify_folder(tmp_path / "x") == []


def test_existing_folder_is_refused_or_replaced(tmp_path) -> None:
    """Row 19."""
    make(tmp_path / "x", "old")
    with pytest.raises(UsageError, match="exists already"):
        make(tmp_path / "x", "new")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    make(tmp_path / "x", "new", replace=True)
    assert (tmp_path / "x" / "a.txt").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_an_error_inside_leaves_nothing(tmp_path) -> None:
    make(tmp_path / "x", "old")
    with pytest.raises(KeyError), new_folder(tmp_path / "x", replace=True):
        raise KeyError("stop")
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "y"):
        (tmp_path / "input that is not there").read_bytes()
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch) -> None:
    make(tmp_path / "x", "old")
    replace = os.replace

    def fail(source, target) -> None:
        if str(source).endswith(".new"):
            raise OSError(errno.EIO, "Input/output error", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ResourceError, match="Writing failed"):
        make(tmp_path / "x", "new", replace=True)
    assert (tmp_path / "x" / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("present", "expected"),
    [(("new",), "new"), (("old",), "old"), (("old", "new"), "new"), (("", "old"), ""), (("", "new"), "")],
)
def test_settle_after_an_interruption(tmp_path, present: tuple[str, ...], expected: str) -> None:
    """Every state between writing X.new and removing X.old becomes one whole folder."""
    names = {"": tmp_path / "x", "new": tmp_path / "x.new", "old": tmp_path / "x.old"}
    for name in present:
        make(tmp_path / "scratch", name)
        os.rename(tmp_path / "scratch", names[name])
    assert (readable(names[""]) / "a.txt").read_text() == expected
    settle(names[""])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert (names[""] / "a.txt").read_text() == expected


def test_an_unfinished_new_folder_does_not_win(tmp_path) -> None:
    make(tmp_path / "x.old", "old")
    (tmp_path / "x.new").mkdir()
    (tmp_path / "x.new" / files.MARKER).touch()
    settle(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"


@pytest.mark.parametrize("ending", [".old", ".new"])
def test_a_users_own_folder_is_never_touched(tmp_path, ending: str) -> None:
    mine = tmp_path / f"x{ending}"
    mine.mkdir()
    (mine / "precious").touch()
    with pytest.raises(UsageError, match="acorn did not make it"):
        make(tmp_path / "x", "new")
    assert (mine / "precious").exists()


def test_verify_names_what_is_wrong(tmp_path) -> None:
    """Row 22: a file added, missing, cut short, bit-flipped; and a manifest that is none."""

    def faults_after(damage) -> str:
        folder = tmp_path / "x"
        make(folder, "hello", replace=True)
        damage(folder)
        (fault,) = verify_folder(folder)
        return fault

    assert "was added" in faults_after(lambda folder: (folder / "b.txt").touch())
    assert "is missing" in faults_after(lambda folder: (folder / "a.txt").unlink())
    assert "has 4 bytes, not 5" in faults_after(lambda folder: (folder / "a.txt").write_text("hell"))
    assert "SHA-256 differs" in faults_after(lambda folder: (folder / "a.txt").write_text("jello"))
    assert "cannot be read" in faults_after(lambda folder: (folder / "manifest.json").write_text("{"))
    assert "form of a manifest" in faults_after(lambda folder: (folder / "manifest.json").write_text("[]"))
    outside = {"files": {"../a.txt": {"sha256": "", "bytes": 1}}}
    (tmp_path / "x" / "manifest.json").write_text(json.dumps(outside))
    assert any("outside its folder" in fault for fault in verify_folder(tmp_path / "x"))
    assert "not a folder" in verify_folder(tmp_path / "nowhere")[0]


def test_json_is_sorted_and_strict(tmp_path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DamageError):
        read_json(tmp_path / "a.json")


def test_lock_keeps_a_second_process_out(tmp_path) -> None:
    """Row 30. The lock goes with its holder, however that ends."""
    script = (
        "import sys; from pathlib import Path; from acorn.files import FolderLock\n"
        "with FolderLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "run" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=f"process {holder.pid}"), FolderLock(path):
        pass
    holder.kill()
    holder.wait()
    with FolderLock(path):
        assert str(os.getpid()) in path.read_text()
