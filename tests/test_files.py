"""Files are written durably: a file is the old or the new one, never a mixture."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from acorn import files
from acorn.errors import DamageError, ResourceError, UsageError
from acorn.files import (
    path_named,
    read_json,
    read_sealed_json,
    remove_temporary_files,
    write_file,
    write_json,
    write_sealed_json,
)


def test_write_file_replaces_the_whole_file(tmp_path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    write_file(path, "one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_json_escapes_lone_surrogates(tmp_path) -> None:
    """In Python, file names that are not UTF-8 are strings with lone surrogates."""
    value = {"name": "caf\udce9/é.txt", "caf\udce9": [1]}
    write_sealed_json(tmp_path / "file.json", value)
    assert read_sealed_json(tmp_path / "file.json") == value
    assert "é" in (tmp_path / "file.json").read_text("utf-8")


def test_the_message_about_a_failed_write_is_true(tmp_path, monkeypatch) -> None:
    """It names the file, not the temporary one, and says that the old file is unchanged only if there is one."""

    def fail(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(tmp_path / "file.txt.7.tmp"))

    monkeypatch.setattr(os, "fsync", fail)
    for before in (False, True):
        if before:
            (tmp_path / "file.txt").write_text("old")
        with pytest.raises(ResourceError) as caught:
            write_file(tmp_path / "file.txt", "new")
        assert caught.value.where == str(tmp_path / "file.txt")
        assert ("what was there before is intact" in caught.value.fix) == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call: str) -> None:
    """Faults 6 and 34."""
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


def test_json_is_sorted_and_strict(tmp_path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1.5\n  ],\n  "b": 1\n}\n'
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DamageError):
        read_json(tmp_path / "a.json")


def test_every_change_of_a_sealed_object_is_found(tmp_path) -> None:
    """Layout and order of keys do not matter; every value does."""
    path = tmp_path / "a.json"
    write_sealed_json(path, {"b": [1, None], "a": {"c": "é"}})
    assert read_sealed_json(path) == {"b": [1, None], "a": {"c": "é"}}
    written = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(written.items())), indent=7))
    assert read_sealed_json(path)["b"] == [1, None]
    for changed in ({**written, "b": [1, 0]}, {**written, "d": 1}, {"b": [1, None]}, [], {}):
        path.write_text(json.dumps(changed))
        with pytest.raises(DamageError, match="was changed after it was written"):
            read_sealed_json(path)


def test_half_written_files_of_ended_processes_are_removed(tmp_path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f"report.html.{gone.pid}.tmp").touch()
    (tmp_path / f"report.html.{os.getppid()}.tmp").touch()
    (tmp_path / "mine.tmp").touch()
    remove_temporary_files(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {f"report.html.{os.getppid()}.tmp", "mine.tmp"}


def test_on_macos_the_cache_of_the_drive_is_flushed(tmp_path, monkeypatch) -> None:
    """fsync() alone does not flush it. Without support for F_FULLFSYNC, fsync() is used; other errors are raised."""
    calls: list[str] = []
    refusal: list[int] = []

    def full(descriptor: int, command: int) -> None:
        calls.append(f"fcntl {command}")
        if refusal:
            raise OSError(refusal[0], "refused")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    files.sync_file(0)
    assert calls == ["fcntl 51"]
    refusal.append(errno.ENOTSUP)
    files.sync_file(0)
    assert calls == ["fcntl 51", "fcntl 51", "fsync"]
    refusal[0] = errno.EIO
    with pytest.raises(OSError, match="refused"):
        files.sync_file(0)


def test_a_file_system_that_cannot_flush_folders_is_accepted(tmp_path, monkeypatch) -> None:
    """Some network file systems refuse to flush folders; errors of a failing disk are raised."""

    def fail(number: int):
        def fsync(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    files.sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="error"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", None, 5, b"bytes", ["list"], True])
def test_impossible_paths_are_refused(name) -> None:
    with pytest.raises(UsageError) as caught:
        path_named(name, "--out")
    assert caught.value.where.startswith("--out")
    assert caught.value.fix


def test_a_path_is_not_changed(tmp_path) -> None:
    for name in (".", "..", " ", "a/b", "caf\udce9", "~", tmp_path):
        assert str(path_named(name, "--out")) == str(name)
