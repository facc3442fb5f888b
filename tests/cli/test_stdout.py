"""Printing when stdout has another encoding, is closed, is on a full disk, or is a closed pipe."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest

from acorn.cli.output import check_stdout, print_json
from acorn.cli.stdout import ReaderGoneError, Stdout, occupy_closed_files
from acorn.errors import ResourceError


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def written(to: io.TextIOWrapper) -> str:
    assert isinstance(to.buffer, io.BytesIO)
    return to.buffer.getvalue().decode(to.encoding)


class Failing(io.StringIO):
    """A stream in which every write fails, or only the flush, because small writes are buffered."""

    def __init__(self, error: OSError, at: str) -> None:
        super().__init__()
        self.error, self.at = error, at

    def write(self, text: str) -> int:
        if self.at == "write":
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.at == "flush":
            raise self.error


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("utf-8", "ภาษา é 🌳", "ภาษา é 🌳"),
        ("cp1252", "ภ é", "\\u0e20 é"),
        ("ascii", "é 🌳", "\\xe9 \\U0001f333"),
        ("utf-8", "caf\udce9", "caf\\udce9"),  # a file name that is not UTF-8, in Python's representation
    ],
)
def test_every_character_is_printed_or_escaped(
    capsys: pytest.CaptureFixture[str], encoding: str, text: str, shown: str
) -> None:
    """Characters outside the encoding are escaped, which is noted once."""
    inner = stream(encoding)
    out = Stdout(inner)
    for _ in range(3):
        assert out.write(text) == len(shown)
    assert written(inner) == 3 * shown
    told = capsys.readouterr().err
    assert told.count("\n") == (0 if text == shown else 1)
    assert text == shown or f"encoding of stdout, {encoding}," in told


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "utf-16"])
@pytest.mark.parametrize("text", ["plain", "ภาษา é 🌳", "caf\udce9"])
def test_json_is_valid_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], encoding: str, text: str
) -> None:
    """Python's escapes are not valid in JSON. JSON's own escapes lose nothing, so there is no note."""
    inner = stream(encoding)
    monkeypatch.setattr(sys, "stdout", Stdout(inner))
    print_json({"text": text})
    assert json.loads(written(inner)) == {"text": text}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("at", ["write", "flush"])
def test_a_full_disk_is_always_an_error(at: str) -> None:
    """Even if a library has swallowed an earlier error. Python's own flush at exit does not fail again."""
    out = Stdout(Failing(OSError(errno.ENOSPC, "No space left on device"), at))
    with pytest.raises(ResourceError, match="written to stdout: No space left on device") as caught:
        print("text", file=out, flush=True)  # type: ignore[call-overload]
    assert caught.value.exit_code == 6
    assert caught.value.fix
    with pytest.raises(ResourceError):
        out.write("more")
    out.flush()


@pytest.mark.parametrize("at", ["write", "flush"])
def test_a_closed_pipe_is_no_error(at: str) -> None:
    out = Stdout(Failing(BrokenPipeError(errno.EPIPE, "Broken pipe"), at))
    with pytest.raises(ReaderGoneError):
        print("text", file=out, flush=True)  # type: ignore[call-overload]
    out.flush()


def test_nothing_more_is_written_to_a_failing_file(tmp_path: Path) -> None:
    """Its buffer goes to /dev/null; otherwise, Python would fail again at exit (exit code 120)."""
    reader, writer = os.pipe()
    inner = open(writer, "w")  # noqa: SIM115 - closed below
    out = Stdout(inner)
    out.write("text that waits")
    os.close(reader)
    with pytest.raises(ReaderGoneError):
        out.flush()
    inner.flush()
    inner.close()


def test_a_closed_stdout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Stdout(None))
    with pytest.raises(ResourceError, match="it is closed"):
        check_stdout()
    with pytest.raises(ResourceError, match="it is closed"):
        print("result")
    sys.stdout.flush()
    assert not sys.stdout.isatty()


def test_an_open_stdout_passes_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = stream("utf-8")
    monkeypatch.setattr(sys, "stdout", Stdout(inner))
    check_stdout()
    assert written(inner) == ""


def test_file_descriptors_of_closed_streams_are_reserved() -> None:
    """In a child process: no file that is opened later may get the file descriptor of stdout."""
    child = os.fork()
    if child == 0:
        os.close(0)
        os.close(1)
        occupy_closed_files()
        opened = os.open("/dev/zero", os.O_RDONLY)
        os._exit(0 if opened > 2 and os.write(1, b"x") == 1 and os.read(0, 1) == b"" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    occupy_closed_files()  # nothing is closed here, so nothing changes
