"""A standard output that can show every character, and that reports clearly when it cannot be written."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO, cast

from acorn.errors import ResourceError


class ReaderGoneError(Exception):
    """The program that reads the output closed the pipe, as `head` does when it has enough."""


class Stdout:
    """The part of a text stream that print() and typer need, around the process's own.

    Characters that the stream's encoding lacks are written as backslash escapes; a note on stderr says so once.

    Args:
        stream: None where stdout is closed.

    Raises:
        ResourceError: by `write` and `flush`, if stdout is closed or cannot be written.
        ReaderGoneError: by `write` and `flush`, if the reader of a pipe closed it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._failure: Exception | None = None  # raised again by every later write
        self._has_told = False

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        return getattr(self._stream, "errors", None) or "strict"

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("stdout is closed")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if self._failure or self._stream is None:
            raise self._failure or _lost("it is closed")
        if text == "":  # typer probes a stream with it, and would swallow the error
            return 0
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            self._tell()
            return self.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Flushes, unless a write failed before: Python flushes once more as it exits, and would fail again."""
        if self._stream is None or self._failure:
            return
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Exception:
        """The exception to raise; what is still in the stream's buffer is discarded."""
        gone = isinstance(error, BrokenPipeError)
        self._failure = ReaderGoneError() if gone else _lost(error.strerror or str(error))
        with contextlib.suppress(OSError):  # not a file of the operating system
            number = self.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        return self._failure

    def _tell(self) -> None:
        if not self._has_told:
            print(
                f"acorn: The encoding of stdout, {self.encoding}, lacks some characters of the text. They are written "
                "as escapes such as \\u0e20. Set PYTHONIOENCODING=utf-8 to print them unchanged.",
                file=sys.stderr,
            )
        self._has_told = True


def _lost(why: str) -> ResourceError:
    return ResourceError(
        f"The output could not be written to stdout: {why}.",
        where="stdout",
        fix="redirect it to a file on a disk with free space (> FILE), or to /dev/null; files that the command has "
        "already written are complete",
    )


def open_stdout() -> TextIO:
    """`sys.stdout` as a `Stdout`."""
    return cast(TextIO, Stdout(sys.stdout))


def occupy_closed_files() -> None:
    """Puts /dev/null where stdin, stdout or stderr is closed.

    Otherwise the next opened file would get the descriptor of the closed stream, and anything printed would go into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)
