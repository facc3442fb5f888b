"""Parts by themselves: resuming, and what is refused. What they become is tested in `test_merge.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acorn.config import DataConfig
from acorn.data import part as module
from acorn.data.part import prepare_part
from acorn.data.part_rows import PieceFiles
from acorn.errors import InputError, UsageError
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

SRC = Path(__file__).parents[2] / "src"

# A process that ends while it writes its fourth piece, without cleanup.
KILLED = """
import os
from pathlib import Path
from acorn.config import DataConfig
from acorn.data.part import prepare_part
from acorn.data.part_rows import PieceFiles
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer

finish = PieceFiles.finish
def finish_or_die(self, counts):
    if self.number == 3:
        os._exit(9)
    finish(self, counts)
PieceFiles.finish = finish_or_die
data = DataConfig(source=({text!r},), document="line")
prepare_part(TextSplits.open(data), Tokenizer.from_file(Path({tokenizer!r})), Path({out!r}), 1, 1, piece_bytes=100)
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: ["line one two three"] * 3, "bpe", 280)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(f"line {n}" for n in range(90)), "utf-8")
    return path


def make(text: Path, tokenizer: Tokenizer, out: Path, part: int = 1, parts: int = 1, **more: Any) -> None:
    data = DataConfig(source=(str(text),), document="line", **more)
    prepare_part(TextSplits.open(data), tokenizer, out, part, parts, piece_bytes=100)


def content_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}


def test_a_killed_part_goes_on_with_the_pieces_that_are_missing(
    text: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    out = tmp_path / "part"
    script = KILLED.format(text=str(text), tokenizer=str(tmp_path / "tokenizer.json"), out=str(out))
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 9
    assert not out.exists()
    torn = PieceFiles(out.with_name("part.new"), "train", 1)
    torn.tokens.write_bytes(torn.tokens.read_bytes()[:-1])  # as if the disk had lost the end
    written: list[int] = []
    finish = PieceFiles.finish

    def finish_and_record(self: PieceFiles, counts: Any) -> None:
        written.append(self.number)
        finish(self, counts)

    monkeypatch.setattr(PieceFiles, "finish", finish_and_record)
    make(text, tokenizer, out)
    assert written == [1, 3, 4, 5, 6, 7]
    make(text, tokenizer, tmp_path / "undisturbed")
    assert content_of(out) == content_of(tmp_path / "undisturbed")
    assert not out.with_name("part.new").exists()


def test_after_an_error_the_whole_pieces_stay(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    content = text.read_bytes()
    text.write_bytes(content[:350] + b"\xff" + content[351:])
    with pytest.raises(InputError, match="not UTF-8"):
        make(text, tokenizer, tmp_path / "part")
    assert PieceFiles(tmp_path / "part.new", "train", 2).is_whole()
    assert not PieceFiles(tmp_path / "part.new", "train", 3).is_whole()


def test_a_complete_part_is_left_as_it_is(
    text: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(text, tokenizer, tmp_path / "part", 2, 3)
    before = content_of(tmp_path / "part")
    monkeypatch.setattr(module, "_PartWriter", None)  # fails if anything is written
    make(text, tokenizer, tmp_path / "part", 2, 3)
    assert content_of(tmp_path / "part") == before


@pytest.mark.parametrize("ending", ["", ".new"])
def test_a_folder_of_another_part_is_refused(text: Path, tokenizer: Tokenizer, tmp_path: Path, ending: str) -> None:
    make(text, tokenizer, tmp_path / "part", 2, 3)
    (tmp_path / "part").rename(tmp_path / f"part{ending}")
    with pytest.raises(UsageError, match="another part than"):
        make(text, tokenizer, tmp_path / "part", 1, 3)
    with pytest.raises(UsageError, match="another settings than"):
        make(text, tokenizer, tmp_path / "part", 2, 3, dedup=False)
    text.write_text("another text", "utf-8")
    with pytest.raises(UsageError, match="another text than"):
        make(text, tokenizer, tmp_path / "part", 2, 3)


def test_a_folder_of_the_user_is_refused(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    for name in ("part", "other.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    for name in ("part", "other"):
        with pytest.raises(UsageError, match=r"already exists|did not make"):
            make(text, tokenizer, tmp_path / name)


def test_more_parts_than_pieces_are_empty(text: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    make(text, tokenizer, tmp_path / "part", 1, 40)
    assert list((tmp_path / "part").glob("*.rows")) == []
