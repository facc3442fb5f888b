"""Standard output that shows every character it is given, and says clearly where it can take nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO, cast

from acorn.errors import ResourceError


class ReaderGoneError(Exception):
    """Whoever read our output has closed the pipe, as `head` does when it has enough."""


class Stdout:
    """The part of a text stream that print() and typer need, around the process's own.

    Characters that the stream's encoding does not have are written as backslash escapes, which is told once on stderr.

    Args:
        stream: None where stdout is closed.

    Raises:
        ResourceError: by `write` and `flush`, where stdout is closed or cannot be written.
        ReaderGoneError: by `write` and `flush`, where the reader of a pipe has gone.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._failure: Exception | None = None  # what every later write raises again
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
        if text == "":  # what typer tries a stream with; it would swallow the error
            return 0
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            self._tell()
            return self.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Nothing is left to be flushed after a failure: Python, which flushes as it ends, would fail over it again."""
        if self._stream is None or self._failure:
            return
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Exception:
        """What to raise; what is still in the stream's buffer goes to nowhere."""
        gone = isinstance(error, BrokenPipeError)
        self._failure = ReaderGoneError() if gone else _lost(error.strerror or str(error))
        with contextlib.suppress(OSError):  # no file of the system
            number = self.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        return self._failure

    def _tell(self) -> None:
        if not self._has_told:
            print(
                f"acorn: stdout is {self.encoding}, which does not have every character of the text: the others are "
                "written as escapes such as \\u0e20. PYTHONIOENCODING=utf-8 writes them as they are.",
                file=sys.stderr,
            )
        self._has_told = True


def _lost(why: str) -> ResourceError:
    return ResourceError(
        f"The output could not be written to stdout: {why}.",
        where="stdout",
        fix="redirect it to a file on a disk with free space (> FILE), or to /dev/null; files that the command had "
        "written before are whole",
    )


def open_stdout() -> TextIO:
    """`sys.stdout` as a `Stdout`."""
    return cast(TextIO, Stdout(sys.stdout))


def occupy_closed_files() -> None:
    """Puts /dev/null where stdin, stdout or stderr is closed.

    The next file that is opened would get the number of a closed one, and a library that prints would write into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)
