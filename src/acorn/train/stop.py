"""Graceful stop: after a signal, the loop stops at the next step boundary."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from acorn.errors import StoppedError
from acorn.progress import QUIET, Progress

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # a terminal or an ssh session that ends
    SIGNALS.append(signal.SIGHUP)


class StopAsked(Exception):
    """Raised in work that can be done later, after a signal came."""


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP inside the block, unless they are ignored (for example by nohup).

    The first one sets `signal_number`. A second SIGINT ends the process at once with exit code 130: a save in progress
    is not finished, and the older checkpoint is intact. Outside the main thread nothing is caught.

    Args:
        forward: called at each signal, before anything else, possibly several times. For stopping other processes,
            which would otherwise continue after this one ended.
    """

    def __init__(self, forward: Callable[[], None] = lambda: None) -> None:
        self.signal_number: int | None = None
        self._forward = forward
        self._is_held = False
        self._leaves_with: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            with contextlib.suppress(TypeError):  # a handler that was not set from Python cannot be restored
                signal.signal(number, handler)

    def check(self) -> None:
        """Ends work that can be done later, after a signal.

        Raises:
            StopAsked: a signal came.
        """
        if self.signal_number is not None:
            raise StopAsked

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Delays the exit on a second SIGINT to the end of the block, which creates something that `forward` needs."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            if self._leaves_with is not None:
                self._leave(self._leaves_with)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self._forward()
        if self.signal_number is not None and number == signal.SIGINT:
            self._leaves_with = 128 + number
            if not self._is_held:
                self._leave(self._leaves_with)
        self.signal_number = number

    def _leave(self, exit_code: int) -> None:
        self._forward()
        os._exit(exit_code)


class UntilStopped:
    """A progress for work that can be done later: after a signal, the next report of progress raises StopAsked.

    Args:
        listener: gets everything too.
    """

    def __init__(self, stop: StopRequest, listener: Progress = QUIET) -> None:
        self.stop, self.listener = stop, listener

    def note(self, text: str) -> None:
        self.listener.note(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        self.stop.check()
        self.listener.at(task, done, total, unit)

    def end(self, task: str) -> None:
        self.listener.end(task)


@contextlib.contextmanager
def finishing(run: Path, step: int, command: str, progress: Progress) -> Iterator[Progress]:
    """For the end of a run, after its last checkpoint: on a signal, scoring stops, but writing is finished.

    Args:
        run: the run folder.
        step: the last step.
        command: the command that resumes the run.

    Yields:
        the progress for the work.

    Raises:
        StoppedError: a signal came.
    """
    with StopRequest() as stop:
        try:
            yield UntilStopped(stop, progress)
        except StopAsked:
            raise StoppedError(
                stop.signal_number or 0,
                f"Stopped while scoring; training is done, and the checkpoint of step {step:,} is saved.",
                where=str(run),
                fix=f"score it and write the model with: {command}",
            ) from None
    if stop.signal_number is not None:
        raise StoppedError(
            stop.signal_number,
            "Stopped at the very end; the run is complete.",
            where=str(run),
            fix="nothing is left to be done",
        )
