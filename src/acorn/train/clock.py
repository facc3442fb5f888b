"""The clock of a run: wall time, except while its process was stopped or its machine asleep.

A process that was stopped (Ctrl-Z, SIGSTOP, a frozen container) finds that the clock went on, and on some systems so
does one whose machine slept. The system does not tell it, but a thread that reads the clock all the time can: between
two readings lie seconds, and the process used no processor time in them. A long step, save or compilation uses some, or
lets the thread read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

POLL_SECONDS = 0.1
"""Between two looks at the clock. What the process did between the last look and a pause is at most this."""

MIN_PAUSE_SECONDS = 2.0
"""A gap between two looks from which on it counts as a pause, if the process was idle in it."""

MAX_IDLE_CPU_SHARE = 0.25
"""Processor time over a gap's length up to which the process was idle. Before a pause all cores may have worked
until `POLL_SECONDS` after the last look, so on 16 cores a gap is known from 6 s on; who keeps other threads from
looking uses all of one core."""


class RunClock:
    """Seconds since the block was entered, pauses excepted. A thread reads the clock meanwhile.

    Args:
        wall: a clock in seconds that nobody sets.
        processor: processor time of the whole process, in seconds.
    """

    def __init__(
        self, wall: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.process_time
    ) -> None:
        self._wall, self._processor = wall, processor
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="acorn's clock", daemon=True)
        self._last_wall, self._last_processor = wall(), processor()
        self._seconds = 0.0
        self._paused = 0.0

    def __enter__(self) -> RunClock:
        self._last_wall, self._last_processor = self._wall(), self._processor()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def seconds(self) -> float:
        """Seconds up to now, pauses excepted."""
        with self._lock:
            wall, processor = self._wall(), self._processor()
            gap, used = wall - self._last_wall, processor - self._last_processor
            self._last_wall, self._last_processor = wall, processor
            if gap >= MIN_PAUSE_SECONDS and used <= MAX_IDLE_CPU_SHARE * gap:
                worked = min(used, POLL_SECONDS)
                self._paused += gap - worked
                gap = worked
            self._seconds += gap
            return self._seconds

    def take_pause(self) -> float:
        """Seconds of pauses since this was last asked."""
        with self._lock:
            taken, self._paused = self._paused, 0.0
            return taken

    def _keep_looking(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.seconds()
