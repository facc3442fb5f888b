"""A text that is prepared in parts, and merged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from acorn.data.part_rows import PieceFiles
from acorn.text import pieces


@pytest.fixture(autouse=True)
def _six_pieces(monkeypatch, text_file: Path) -> None:
    """The small text of these tests would be one piece."""
    monkeypatch.setattr(pieces, "MIN_PIECE_BYTES", -(-text_file.stat().st_size // 6))
    monkeypatch.setattr(pieces, "PIECES", 6)


@pytest.fixture
def part(acorn, tokenizer_file: Path, text_file: Path):
    """`acorn data prepare --part I/N` into a folder."""

    def run(which: str, out: Path, *more: object, tokenizer: Path = tokenizer_file, text: Path = text_file):
        return acorn("data", "prepare", "--tokenizer", tokenizer, "--input", text, "--part", which, "--out", out, *more)

    return run


@pytest.fixture
def two_parts(part, tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders, start=1):
        assert part(f"{number}/2", folder).returncode == 0
    return folders


@pytest.mark.fault(135)
def test_parts_that_do_not_belong_together(
    acorn, part, two_parts, tokenizer_file: Path, text_file: Path, refused, untouched, tmp_path: Path
) -> None:
    """Fault 135: named, and nothing is written."""
    one, two = two_parts
    shutil.copytree(two, tmp_path / "copy")
    shutil.copytree(two, tmp_path / "begun.new")
    changed = tmp_path / "changed.txt"
    changed.write_text(text_file.read_text("utf-8") + "more\n", "utf-8")
    assert part("2/2", tmp_path / "of-other-text", text=changed).returncode == 0
    assert part("2/2", tmp_path / "of-other-settings", "data.dedup=false").returncode == 0
    assert part("2/3", tmp_path / "of-three").returncode == 0
    with untouched(tmp_path):
        for folders, message in [
            ([one], "1 part of 2 is missing: 2."),
            ([two, one, tmp_path / "copy"], "Part 2 of 2 is named twice"),
            ([one, tmp_path / "begun"], "This part is not complete."),
            ([one, tmp_path / "of-other-text"], "changed.txt of"),
            ([one, tmp_path / "of-other-settings"], "data.dedup is False and True"),
            ([one, tmp_path / "of-three"], "one is part 2 of 3"),
        ]:
            refused(acorn("data", "merge", *folders, "--out", tmp_path / "out"), 3, message)


@pytest.mark.fault(136)
def test_a_part_that_failed_goes_on(acorn, part, two_parts, refused, untouched, monkeypatch, tmp_path: Path) -> None:
    """Fault 136: the same command completes it, and then leaves it as it is."""
    finish = PieceFiles.finish

    def fail(self: PieceFiles, counts) -> None:
        if self.number == 1:
            raise KeyboardInterrupt
        finish(self, counts)

    out = tmp_path / "again"
    with monkeypatch.context() as patched:
        patched.setattr(PieceFiles, "finish", fail)
        assert part("1/2", out).returncode == 130
    assert PieceFiles(tmp_path / "again.new", "train", 0).is_whole()
    assert part("1/2", out).returncode == 0
    with untouched(tmp_path):
        done = part("1/2", out)
        assert done.returncode == 0
        assert "already complete" in done.stderr
        refused(part("2/2", out), 2, "This folder holds part 1 of 2", "another part than")
    assert acorn("data", "merge", out, two_parts[1], "--out", tmp_path / "shards").returncode == 0
    assert acorn("data", "verify", tmp_path / "shards").returncode == 0


@pytest.mark.fault(137)
def test_a_part_that_is_damaged(acorn, two_parts, refused, untouched, tmp_path: Path) -> None:
    """Fault 137: the file is named, and nothing is written."""
    file = sorted(two_parts[1].glob("*.tokens"))[-1]
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    with untouched(tmp_path):
        refused(acorn("data", "merge", *two_parts, "--out", tmp_path / "out"), 4, "parts are damaged", file.name)


def test_what_does_not_name_a_part_is_refused(part, refused, untouched, tmp_path: Path) -> None:
    with untouched(tmp_path):
        for which in ("", "0/2", "3/2", "1", "1/2/3", "-1/2", "1/0", "a/b"):
            refused(part(which, tmp_path / "out"), 2, "does not name a part", "--part 3/8")
