"""Folders written durably: the old or the new, never a mixture."""

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


def test_new_folder_has_a_manifest(tmp_path) -> None:
    make(tmp_path / "x", "hello", extra={"format": "test"})
    manifest = read_json(tmp_path / "x" / "manifest.json")
    assert manifest["format"] == "test"
    assert manifest["files"]["a.txt"]["bytes"] == 5
    # SHA-256 of "hello", as sha256sum prints it
    assert manifest["files"]["a.txt"]["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert verify_folder(tmp_path / "x") == []


def test_existing_folder_is_refused_or_replaced(tmp_path) -> None:
    """Fault 19."""
    make(tmp_path / "x", "old")
    with pytest.raises(UsageError, match="already exists"):
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


@pytest.mark.parametrize("place", ["file/X", "file/deep/X"])
def test_a_place_where_nothing_can_lie_is_named_as_it_was_given(tmp_path, place: str) -> None:
    """Not by the temporary name beside it; and nothing was there that could still stand."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ResourceError, match="file is a file") as caught:
        make(tmp_path / place, "new")
    assert caught.value.where == str(tmp_path / place)
    assert "stands" not in caught.value.fix
    assert (tmp_path / "file").read_text() == "mine"


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
    (tmp_path / "x.new" / MARKER).touch()
    settle(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"


def test_what_cannot_be_read_is_not_thrown_away(tmp_path) -> None:
    """A damaged X.old with nothing better beside it takes its name back: a damaged folder is seen, none is not."""
    make(tmp_path / "x.old", "old")
    (tmp_path / "x.old" / "a.txt").write_text("odl")
    settle(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "odl"
    assert verify_folder(tmp_path / "x")


@pytest.mark.parametrize("name", ["x.new", "x.old"])
def test_wherever_a_removal_stops_the_rest_is_still_ours(tmp_path, monkeypatch, name: str) -> None:
    """Else the next start would refuse a folder that nobody knows."""
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
def test_a_users_own_folder_is_never_touched(tmp_path, ending: str) -> None:
    mine = tmp_path / f"x{ending}"
    mine.mkdir()
    (mine / "precious").touch()
    with pytest.raises(UsageError, match=r"in the way|acorn did not make"):
        make(tmp_path / "x", "new")
    assert (mine / "precious").exists()


def test_verify_names_what_is_wrong(tmp_path) -> None:
    """Fault 22: a file added, missing, cut short, bit-flipped; and a manifest that is none."""

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
def test_a_folder_has_a_second_place_that_takes_no_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """Or where the file system has no links, a copy. Either is whole, and outlives the other."""
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


def test_a_second_place_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    make(tmp_path / "x", "hello")
    begun = tmp_path / "y.new"
    begun.mkdir()
    (begun / MARKER).touch()
    (begun / "a.txt").write_text("hel")
    assert readable(tmp_path / "y") == tmp_path / "y"  # which is not there
    link_folder(tmp_path / "x", tmp_path / "y")
    assert (tmp_path / "y" / "a.txt").read_text() == "hello"
    assert not begun.exists()


def test_a_copy_that_was_put_aside_is_not_taken_for_a_leftover(tmp_path) -> None:
    """Where no folder is replaced, X.old is no step of a replacement, even if acorn made it."""
    make(tmp_path / "x", "mine")
    os.rename(tmp_path / "x", tmp_path / "x.old")
    with pytest.raises(UsageError, match=r"x\.old is in the way") as caught:
        make(tmp_path / "x", "new")
    assert caught.value.where == str(tmp_path / "x.old")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.old"]
    assert (tmp_path / "x.old" / "a.txt").read_text() == "mine"
