"""The clock of a run: wall time, without the time in which the process was stopped or the machine asleep.

The wall clock continues while a process is stopped (Ctrl-Z, SIGSTOP, a frozen container), and on some systems while the
machine sleeps. The system does not report this, so a thread polls the clock: if seconds passed between two readings and
the process used no CPU time in them, it was paused. A long step, save or compilation uses CPU time, or lets the thread
read the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

POLL_SECONDS = 0.1
"""Seconds between two readings of the clock: the most that the process can have worked unnoticed before a pause."""

MIN_PAUSE_SECONDS = 2.0
"""The shortest gap between two readings that counts as a pause, if the process was idle in it."""

MAX_IDLE_CPU_SHARE = 0.25
"""The largest ratio of CPU time to the length of a gap for which the process counts as idle. Before a pause all cores
may have worked for `POLL_SECONDS` after the last reading, so on 16 cores a pause is recognized from 6 s on. A thread
that blocks the polling thread uses all of one core, and is not taken for a pause."""


class RunClock:
    """Seconds since the block was entered, without pauses. A thread polls the clock inside the block.

    Args:
        wall: a monotonic clock, in seconds.
        processor: CPU time of the whole process, in seconds.
    """

    def __init__(
        self, wall: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.process_time
    ) -> None:
        self._wall, self._processor = wall, processor
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="acorn's clock", daemon=True)
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
        """Seconds up to now, without pauses."""
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
        """Seconds of pauses since the last call."""
        with self._lock:
            taken, self._paused = self._paused, 0.0
            return taken

    def _poll(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self.seconds()
