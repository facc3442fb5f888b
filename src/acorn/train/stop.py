"""Stopping politely: a signal asks, the loop answers at the next step boundary."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from acorn.progress import Quiet

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # a terminal or an ssh session that ends
    SIGNALS.append(signal.SIGHUP)


class StopAsked(Exception):
    """Work that can be done later was left, because a signal came."""


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP while the block runs, but for those that were to be ignored (as by nohup).

    The first one sets `signal_number`. A second SIGINT leaves at once with exit code 130: a save that is under way
    is simply not finished, and the older checkpoint stands. Outside the main thread nothing is caught.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
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
            with contextlib.suppress(TypeError):  # a handler that was not set from Python cannot be put back
                signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None and number == signal.SIGINT:
            os._exit(128 + number)
        self.signal_number = number


class UntilStopped(Quiet):
    """A progress for work that can be done later: after a signal, its next sign of life raises StopAsked."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        if self.stop.signal_number is not None:
            raise StopAsked
