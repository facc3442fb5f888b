"""A run in its own process, started by a sweep."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from acorn.config import Config
from acorn.files import disk_errors
from acorn.run_folder import RunFolder

TAIL_BYTES = 20_000
"""Read from the end of a log for a run's last message, and from the end of metrics.jsonl for its last line."""

PROMPT = "\n$ "
"""Marks a command line in a log; the output of the command follows it."""

OUT_OF_MEMORY_EXIT_CODE = 6
"""Exit code of a run that the system killed, which usually means that memory ran out."""


class Job(Protocol):
    """A started run."""

    @property
    def exit_code(self) -> int: ...

    @property
    def error(self) -> str:
        """The last message of the run, in one line."""

    def is_over(self) -> bool: ...

    def stop(self) -> None:
        """Asks the run to save and stop. Calling it again does no harm."""


class RunProcess:
    """`acorn pretrain --resume --out RUN` with its messages in a file.

    It has its own process group, so that Ctrl-C reaches it only once, through `stop`.
    """

    def __init__(self, run: RunFolder, overrides: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", "acorn", "pretrain", *overrides, "--resume", "--out", str(run.root), "--json"]
        self._log, self._asked = log, False
        with disk_errors(log), open(log, "ab") as messages:
            messages.write(f"{PROMPT}{' '.join(command)}\n".encode("utf-8", "backslashreplace"))
            messages.flush()
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages, process_group=0
            )

    @property
    def exit_code(self) -> int:
        """The exit code as a shell gives it; for a run killed by SIGKILL, that of out of memory."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return OUT_OF_MEMORY_EXIT_CODE
        return 128 - code if code < 0 else code

    @property
    def error(self) -> str:
        if (code := self._process.wait()) < 0:
            return f"killed by {signal.Signals(-code).name}" + (
                ", which usually means that memory ran out" if code == -signal.SIGKILL else ""
            )
        lines = _tail(self._log).rpartition(PROMPT)[2].splitlines()[1:]
        messages = [line.removeprefix("acorn: ") for line in lines if line.startswith("acorn: ")]
        return next(reversed(messages or lines), "it printed nothing")

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        if not self._asked and not self.is_over():
            self._asked = True
            self._process.send_signal(signal.SIGTERM)  # not SIGINT: shells let background processes ignore that


def step_and_share(run: RunFolder, config: Config) -> tuple[int, float]:
    """The last step that a run logged, and the share of the run that is done; (0, 0) before the first step."""
    for line in reversed(_tail(run.metrics).splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a half-written line, or one cut by TAIL_BYTES
            record = json.loads(line)
            step, seconds = int(record["step"]), float(record["seconds"])
            done = step / config.train.steps if config.train.steps else seconds / (60 * config.train.minutes)
            return step, min(1.0, done)
    return 0, 0.0


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
