"""A run in a process of its own, as a sweep starts it."""

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
"""Of a log, to find the message that a run ended with; of metrics.jsonl, to find its last line."""

PROMPT = "\n$ "
"""In a log, before the command that what follows is from."""

OUT_OF_RESOURCES = 6
"""Exit code for a run that the system killed, which it does where memory runs out."""


class Job(Protocol):
    """A run that was started."""

    @property
    def exit_code(self) -> int: ...

    @property
    def error(self) -> str:
        """What the run said at its end, in one line."""

    def is_over(self) -> bool: ...

    def stop(self) -> None:
        """Asks the run to save and end. May be called again and again."""


class RunProcess:
    """`acorn pretrain --resume --out RUN`, its messages in a file.

    It is in a process group of its own, so that Ctrl-C reaches it once, through `stop`.
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
        """As a shell tells it; that of a run killed by SIGKILL is the one for a lack of memory."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return OUT_OF_RESOURCES
        return 128 - code if code < 0 else code

    @property
    def error(self) -> str:
        if (code := self._process.wait()) < 0:
            return f"killed by {signal.Signals(-code).name}" + (
                ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
            )
        lines = _tail(self._log).rpartition(PROMPT)[2].splitlines()[1:]
        messages = [line.removeprefix("acorn: ") for line in lines if line.startswith("acorn: ")]
        return next(reversed(messages or lines), "it said nothing")

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        if not self._asked and not self.is_over():
            self._asked = True
            self._process.send_signal(signal.SIGTERM)  # which no shell makes a process ignore


def step_and_share(run: RunFolder, config: Config) -> tuple[int, float]:
    """The last step that a run logged, and the share of its length that is done: 0 and 0 before the first."""
    for line in reversed(_tail(run.metrics).splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that is torn, or cut by the tail
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
