"""Folders are written durably: a folder is the old or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest

from acorn.errors import ResourceError, UsageError
from acorn.files import read_json, seal
from acorn.folders import MARKER, link_folder, new_folder, readable, remove_folder, settle, verify_folder


def make(path, text: str, **options) -> None:
    with new_folder(path, **options) as folder:
        (folder / "a.txt").write_text(text)


def test_a_new_folder_has_a_manifest(tmp_path) -> None:
    make(tmp_path / "x", "hello", extra={"format": "test"})
    manifest = read_json(tmp_path / "x" / "manifest.json")
    assert manifest["format"] == "test"
    assert manifest["files"]["a.txt"]["bytes"] == 5
    # SHA-256 of "hello", as sha256sum prints it
    assert manifest["files"]["a.txt"]["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert verify_folder(tmp_path / "x") == []


def test_an_existing_folder_is_refused_or_replaced(tmp_path) -> None:
    """Fault 19."""
    make(tmp_path / "x", "old")
    with pytest.raises(UsageError, match="already exists"):
        make(tmp_path / "x", "new")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    make(tmp_path / "x", "new", replace=True)
    assert (tmp_path / "x" / "a.txt").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_an_error_during_writing_leaves_nothing(tmp_path) -> None:
    make(tmp_path / "x", "old")
    with pytest.raises(KeyError), new_folder(tmp_path / "x", replace=True):
        raise KeyError("stop")
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "y"):
        (tmp_path / "input that is not there").read_bytes()
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("place", ["file/X", "file/deep/X"])
def test_an_impossible_path_is_named_as_it_was_given(tmp_path, place: str) -> None:
    """Not with its temporary name, and without a claim about an old folder, since there is none."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match="file is a file") as caught:
        make(tmp_path / place, "new")
    assert caught.value.where == str(tmp_path / place)
    assert "stands" not in caught.value.fix
    assert (tmp_path / "file").read_text() == "mine"


def test_a_failed_rename_restores_the_old_folder(tmp_path, monkeypatch) -> None:
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
def test_settle_repairs_every_interrupted_state(tmp_path, present: tuple[str, ...], expected: str) -> None:
    """Every state between writing X.new and removing X.old becomes one complete folder."""
    names = {"": tmp_path / "x", "new": tmp_path / "x.new", "old": tmp_path / "x.old"}
    for name in present:
        make(tmp_path / "scratch", name)
        os.rename(tmp_path / "scratch", names[name])
    assert (readable(names[""]) / "a.txt").read_text() == expected
    settle(names[""])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
    assert (names[""] / "a.txt").read_text() == expected


def test_an_unfinished_new_folder_is_not_used(tmp_path) -> None:
    make(tmp_path / "x.old", "old")
    (tmp_path / "x.new").mkdir()
    (tmp_path / "x.new" / MARKER).touch()
    settle(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"


def test_a_damaged_folder_is_not_removed(tmp_path) -> None:
    """A damaged X.old gets its name back if there is nothing better: damage is reported, a missing folder is not."""
    make(tmp_path / "x.old", "old")
    (tmp_path / "x.old" / "a.txt").write_text("odl")
    settle(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "odl"
    assert verify_folder(tmp_path / "x")


@pytest.mark.parametrize("name", ["x.new", "x.old"])
def test_after_an_interrupted_removal_the_rest_is_recognized_as_acorns(tmp_path, monkeypatch, name: str) -> None:
    """Otherwise, the next start would refuse it as an unknown folder."""
    calls = {"unlink": 0}
    unlink = Path.unlink
    for stop_at in range(1, 5):

        def stop(path: Path, missing_ok: bool = False, *, last: int = stop_at) -> None:
            calls["unlink"] += 1
            if calls["unlink"] == last:
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        make(tmp_path / name, "old")
        (tmp_path / "x").mkdir(exist_ok=True)
        calls["unlink"] = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", stop)
            with contextlib.suppress(KeyboardInterrupt):
                remove_folder(tmp_path / name)
        settle(tmp_path / "x")
        assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("ending", [".old", ".new"])
def test_a_users_own_folder_is_never_changed(tmp_path, ending: str) -> None:
    mine = tmp_path / f"x{ending}"
    mine.mkdir()
    (mine / "precious").touch()
    with pytest.raises(UsageError, match=r"in the way|acorn did not make"):
        make(tmp_path / "x", "new")
    assert (mine / "precious").exists()


def test_verify_names_what_is_wrong(tmp_path) -> None:
    """Fault 22: a file is added, missing, truncated or has a flipped bit; or the manifest is not valid."""

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
    assert "is not a manifest" in faults_after(
        lambda folder: (folder / "manifest.json").write_text(json.dumps(seal({"files": []})))
    )
    assert "its SHA-256 differs" in faults_after(lambda folder: (folder / "manifest.json").write_text("[]"))
    outside = {"files": {"../a.txt": {"sha256": "", "bytes": 1}}}
    (tmp_path / "x" / "manifest.json").write_text(json.dumps(seal(outside)))
    assert any("outside its folder" in fault for fault in verify_folder(tmp_path / "x"))
    assert "not a folder" in verify_folder(tmp_path / "nowhere")[0]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_linked_folder_takes_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    """Without links in the file system, it is a copy. Both folders are complete and independent."""
    if not has_links:

        def refused(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refused)
    make(tmp_path / "x", "hello", extra={"format": "test"})
    link_folder(tmp_path / "x", tmp_path / "in" / "y")
    assert verify_folder(tmp_path / "in" / "y") == []
    assert [entry.name for entry in (tmp_path / "in").iterdir()] == ["y"]
    one, other = tmp_path / "x" / "a.txt", tmp_path / "in" / "y" / "a.txt"
    assert os.path.samefile(one, other) is has_links
    remove_folder(tmp_path / "x")
    assert other.read_text() == "hello"
    make(tmp_path / "x", "other")
    link_folder(tmp_path / "x", tmp_path / "in" / "y")
    assert other.read_text() == "other"


def test_an_incomplete_linked_folder_is_made_again(tmp_path: Path) -> None:
    make(tmp_path / "x", "hello")
    begun = tmp_path / "y.new"
    begun.mkdir()
    (begun / MARKER).touch()
    (begun / "a.txt").write_text("hel")
    assert readable(tmp_path / "y") == tmp_path / "y"  # does not exist
    link_folder(tmp_path / "x", tmp_path / "y")
    assert (tmp_path / "y" / "a.txt").read_text() == "hello"
    assert not begun.exists()


def test_a_users_copy_is_not_taken_for_a_leftover(tmp_path) -> None:
    """If X is not being replaced, X.old is not part of a replacement, even if acorn made it."""
    make(tmp_path / "x", "mine")
    os.rename(tmp_path / "x", tmp_path / "x.old")
    with pytest.raises(UsageError, match=r"x\.old is in the way") as caught:
        make(tmp_path / "x", "new")
    assert caught.value.where == str(tmp_path / "x.old")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.old"]
    assert (tmp_path / "x.old" / "a.txt").read_text() == "mine"
