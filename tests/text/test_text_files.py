from __future__ import annotations

import gzip
import lzma
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from acorn.errors import InputError
from acorn.text import text_files
from acorn.text.text_files import EXAMPLES, TextFile, ending_of, open_text

Write = Callable[[str, bytes | str], Path]
TEXT = "".join(f"Line {number} of a text that is long enough to be compressed.\n" for number in range(5_000)).encode()
COMPRESS = {
    ".gz": lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pyarrow.compress(data, "zstd", asbytes=True)),
}


def content(path: Path) -> bytes:
    with open_text(TextFile.at(path)) as file:
        return file.bytes.read()


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.txt", ".txt"),
        ("A.TXT.GZ", ".txt.gz"),
        ("b.jsonl.zst", ".jsonl.zst"),
        ("c.parquet", ".parquet"),
        ("c.parquet.gz", None),
        ("notes.md", ".md"),
        ("T.CSV.XZ", ".csv.xz"),
        ("page.htm", ".htm"),
        ("notes.doc", None),
        ("txt", None),
    ],
)
def test_endings(name: str, ending: str | None) -> None:
    assert ending_of(name) == ending


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.jsonl", ".jsonl"),
        ("a.JSON.GZ", ".json.gz"),
        ("a.csv", ".csv"),
        ("a.tsv.zst", ".tsv.zst"),
        ("a.Conll", ".conll"),
        ("a.iob", ".iob"),
        ("a.parquet", ".parquet"),
        ("a.txt", None),
        ("a.md", None),
    ],
)
def test_endings_of_tables(name: str, ending: str | None) -> None:
    assert ending_of(name, EXAMPLES) == ending


def test_the_two_kinds_of_endings_are_distinguished(write: Write) -> None:
    path = write("a.csv", "a,b\n")
    assert TextFile.at(path).form == "txt"
    assert TextFile.at(path, endings=EXAMPLES).form == "csv"
    assert text_files.TEXT.listed.startswith(
        ".txt, .jsonl, .md, .csv, .tsv, .html, .htm (each also with .gz, .xz, .zst after it)"
    )
    assert EXAMPLES.listed.endswith(".conll, .iob (each also with .gz, .xz, .zst after it) and .parquet")


@pytest.mark.parametrize("compression", COMPRESS)
def test_compressed_text_is_read_and_position_follows_the_file(write: Write, compression: str) -> None:
    path = write(f"a.txt{compression}", COMPRESS[compression](TEXT))
    with open_text(TextFile.at(path)) as file:
        assert file.bytes.read(100) == TEXT[:100]
        assert 0 < file.position <= path.stat().st_size
        assert file.bytes.read() == TEXT[100:]
        assert file.position == path.stat().st_size


def test_several_zstandard_frames_in_a_row(write: Write) -> None:
    assert content(write("a.txt.zst", COMPRESS[".zst"](b"one\n") + COMPRESS[".zst"](b"two\n"))) == b"one\ntwo\n"


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_refused(write: Write, compression: str, kept: float) -> None:
    """Fault 10: a truncated gzip, xz or zst file; file and offset are reported."""
    packed = COMPRESS[compression](TEXT)
    path = write(f"a.txt{compression}", packed[: int(len(packed) * kept)])
    with pytest.raises(InputError, match="truncated") as error:
        content(path)
    assert re.search(rf"a\.txt{compression}, at or before byte \d+ of \d+", error.value.where)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_file_that_is_not_compressed_is_refused(write: Write, compression: str) -> None:
    """Fault 10: damage of other kinds."""
    with pytest.raises(InputError, match="damaged"):
        content(write(f"a.txt{compression}", TEXT))


def test_bytes_after_the_compressed_text_are_refused(write: Write) -> None:
    """Fault 10: damage of other kinds."""
    with pytest.raises(InputError, match="damaged"):
        content(write("a.txt.gz", gzip.compress(TEXT) + b"garbage"))


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    """Fault 12: a FIFO where a file is expected. In a separate process, so that a hang does not stop the tests."""
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("pipe.txt")
    program = "import sys, pathlib, acorn.text.text_files as t\nt.TextFile.at(pathlib.Path(sys.argv[1]))"
    for name in ("pipe.txt", "link.txt"):
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "This is a named pipe, but a file is expected." in done.stderr


def test_anything_but_a_regular_file_is_refused(tmp_path: Path) -> None:
    """Fault 12: a directory, a symlink loop, a device, nothing at all."""
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "a.txt").symlink_to("b.txt")
    (tmp_path / "b.txt").symlink_to("a.txt")
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    expected = {"folder.txt": "a folder", "a.txt": "symbolic link", "gone.txt": "No such file", "/dev/null": "a device"}
    for name, words in expected.items():
        with pytest.raises(InputError, match=words) as error:
            TextFile.at(tmp_path / name)
        assert error.value.where == str(tmp_path / name)


def test_an_unknown_ending_is_refused_with_the_supported_ones(write: Write) -> None:
    with pytest.raises(InputError, match=r"notes\.doc") as error:
        TextFile.at(write("notes.doc", "text"))
    assert all(ending in error.value.fix for ending in (".jsonl", ".md", ".zst", ".parquet"))


def test_a_file_that_grows_while_it_is_read_is_noticed(write: Write) -> None:
    """Fault 14: a file changed while it was read."""
    path = write("a.txt", TEXT)

    def read_while_it_grows() -> None:
        with open_text(TextFile.at(path)) as file, path.open("ab") as other:
            file.bytes.read(10)
            other.write(b"more")
            other.flush()

    with pytest.raises(InputError, match="changed while it was in use") as error:
        read_while_it_grows()
    assert error.value.where == str(path)


def test_a_file_rewritten_with_equal_length_between_two_passes_is_noticed(write: Write) -> None:
    """Fault 14: a file changed between the passes, detected by its modification time."""
    path = write("a.txt", TEXT)
    file = TextFile.at(path)
    with open_text(file) as opened:
        opened.bytes.read()
    path.write_bytes(TEXT[::-1])
    os.utime(path, ns=(0, file.changed_ns + 1))
    with pytest.raises(InputError, match="changed while it was in use"), open_text(file):
        pytest.fail("it was opened")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(write: Write) -> None:
    path = write("a.txt", TEXT)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        content(path)
