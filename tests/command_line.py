"""Runs the command as a user does: with arguments, giving exit code, stdout and stderr. For all tests."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from acorn.cli.main import main


@dataclass(frozen=True)
class Done:
    """The outcome of a command."""

    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def signal_handlers_put_back() -> Iterator[None]:
    """Restores signal handlers: the command line installs its own, and ignores signals at its end."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_acorn(*arguments: object, cwd: Path | None = None) -> Done:
    """Runs the command line in this process: a new one would load PyTorch again, and faults could not be injected.

    Exceptions that `main` does not turn into a message and an exit code are raised.
    """
    out, err, argv, folder = io.StringIO(), io.StringIO(), sys.argv, Path.cwd()
    sys.argv = ["acorn", *map(str, arguments)]
    os.chdir(cwd or folder)
    try:
        with (
            signal_handlers_put_back(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
    finally:
        sys.argv = argv
        os.chdir(folder)
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())
