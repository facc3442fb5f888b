"""Progress in the terminal: one live line, or plain lines in a log.

Everything goes to stderr, so that stdout has only results. In a log (stderr is not a terminal), a progress line is
printed at most every ten seconds; validations, samples and notes always are. All times are from `time.monotonic`, so a
jump of the system clock changes no rate and no time left.
"""

from __future__ import annotations

import io
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from acorn.report.formats import amount, duration, part_of, printable, rate

RICH_BROKEN_PIPE_CODE = 1  # with which rich exits when it meets a broken pipe
LOG_SECONDS = 10.0  # between plain lines
REDRAW_SECONDS = 0.1  # between updates of the live line
RATE_WINDOW = 30.0  # recent seconds from which a rate and the time left are computed
MIN_RATE_SECONDS = 1.0  # of work before a rate is shown
MIN_SECONDS_LEFT = 0.05  # less would be shown as 0.0
BAR_WIDTH = 24
MIN_WIDTH_WITH_BAR = 100  # columns; a narrower terminal has no space for the bar beside the figures

Clock = Callable[[], float]


class TrainingLine:
    """The live line of a training run.

    Args:
        steps: steps of the run; 0 if it ends by the clock.
        screen: where to write; by default stderr.
    """

    def __init__(self, steps: int = 0, screen: Screen | None = None) -> None:
        self._steps = steps
        self._screen = screen or Screen()
        self._logged = -math.inf
        self._validation_loss = math.nan
        self._latest: tuple[str, float] | None = None

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        """Shows a train record of metrics.jsonl.

        Args:
            record: the record.
            done: share of the run that is done, 0 to 1.
            seconds_left: None while it is unknown.
        """
        line = "  ".join(part for part in self._figures(record, seconds_left) if part)
        self._latest = (line, done)
        if done >= 1:
            self.close()
        elif self._screen.is_live:
            self._screen.draw(lambda: _bar_and_text(line, done, self._screen.width))
        elif self._screen.clock() - self._logged >= LOG_SECONDS:
            self._logged = self._screen.clock()
            self._say_latest()

    def valid(self, record: Mapping[str, Any]) -> None:
        """Prints a validation record of metrics.jsonl, and shows its loss in the line from now on."""
        self._validation_loss = _number(record, "loss")
        bits = _number(record, "bits_per_byte")
        in_bits = f" ({bits:.3f} bits per byte)" if math.isfinite(bits) else ""
        self._screen.print(f"step {record['step']:,}  validation loss {self._validation_loss:.4f}{in_bits}")

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Prints sampled text, indented. Control characters in it are escaped."""
        start = f' from "{printable(prompt)}"' if prompt else ""
        body = "\n".join(f"    {line}" for line in printable(text).splitlines())
        self._screen.print(f"step {step:,}  sample{start}:\n{body}")

    def note(self, text: str) -> None:
        """Prints one line, such as a warning or the path of a saved checkpoint."""
        self._screen.print(printable(text))

    def close(self) -> None:
        """Prints the last state of the line. Calling it again does no harm."""
        if self._latest:
            self._say_latest()
        self._screen.close()

    def _say_latest(self) -> None:
        assert self._latest is not None
        line, done = self._latest
        self._latest = None
        self._screen.print(f"{line}  ({100 * done:.0f} % done)")

    def _figures(self, record: Mapping[str, Any], seconds_left: float | None) -> list[str]:
        """The parts of the line, the most important first: a narrow terminal cuts off the end."""
        loss, speed, mfu = (_number(record, name) for name in ("loss", "tokens_per_second", "mfu"))
        left, known = math.nan if seconds_left is None else seconds_left, math.isfinite
        return [
            f"step {record['step']:,}" + (f"/{self._steps:,}" if self._steps else ""),
            f"loss {loss:.3f}" if known(loss) else "",
            f"valid {self._validation_loss:.3f}" if known(self._validation_loss) else "",
            f"{duration(left)} left" if MIN_SECONDS_LEFT <= left < math.inf else "",
            rate(speed, "tokens") if known(speed) else "",
            f"{100 * mfu:.0f} % of peak" if known(mfu) else "",
        ]


class TaskProgress:
    """A `progress.Progress` for the command line: a bar for each running task, and one line when it is done."""

    def __init__(self, screen: Screen | None = None) -> None:
        self._screen = screen or Screen()
        self._tasks: dict[str, _Task] = {}

    def note(self, text: str) -> None:
        self._screen.print(printable(text))

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        now = self._screen.clock()
        state = self._tasks.get(task)
        if state is None:
            state = self._tasks[task] = _Task(printable(task), now, done)
            if not self._screen.is_live:
                self._screen.print(f"{state.name} ...")
        state.update(now, done, total, unit)
        if self._screen.is_live:
            self._screen.draw(self._picture)
        elif now - state.logged >= LOG_SECONDS:
            state.logged = now
            self._screen.print(f"{state.name}: {state.progress()}")

    def end(self, task: str) -> None:
        state = self._tasks.pop(task, None)
        if not self._tasks:
            self._screen.close()
        self._screen.print(f"{printable(task)}: {state.summary(self._screen.clock()) if state else 'done'}")

    def close(self) -> None:
        """Removes the bars of unfinished tasks, when an error ends the work, for example."""
        self._tasks.clear()
        self._screen.close()

    def _picture(self) -> RenderableType:
        width = self._screen.width
        lines = [(f"{task.name}: {task.progress()}", task.share) for task in self._tasks.values()]
        return Group(*(_bar_and_text(line, share, width) for line, share in lines))


class _Task:
    """The progress of one task and its recent rate."""

    def __init__(self, name: str, now: float, done: float) -> None:
        self.name = name
        self.logged = now  # when its last plain line was printed
        self._started, self._first = now, done
        self._done, self._total, self._unit = done, 0.0, "bytes"
        self._recent: deque[tuple[float, float]] = deque([(now, done)])

    @property
    def share(self) -> float | None:
        """Done divided by total (0 to 1); None if the total is unknown."""
        return min(1.0, self._done / self._total) if self._total > 0 else None

    def update(self, now: float, done: float, total: float, unit: str) -> None:
        self._done, self._total, self._unit = done, total, unit
        if now - self._recent[-1][0] >= REDRAW_SECONDS:
            self._recent.append((now, done))
        while len(self._recent) > 2 and now - self._recent[1][0] >= RATE_WINDOW:
            self._recent.popleft()

    def progress(self) -> str:
        """`34 %, 4.2 MB of 12.3 MB, 3.1 MB/s, 3 s left`; unknown parts are left out."""
        parts = []
        if self.share is not None:
            parts.append(f"{100 * self.share:.0f} %")
            parts.append(part_of(self._done, self._total, self._unit))
        else:
            parts.append(amount(self._done, self._unit))
        (start, before), (now, done) = self._recent[0], self._recent[-1]
        if now - start >= MIN_RATE_SECONDS and done > before:
            speed = (done - before) / (now - start)
            parts.append(rate(speed, self._unit))
            if self._total >= self._done and self._total > 0:
                parts.append(f"{duration((self._total - self._done) / speed)} left")
        return ", ".join(parts)

    def summary(self, now: float) -> str:
        """`12.3 MB in 4.1 s (3.0 MB/s)`."""
        seconds, work = now - self._started, self._done - self._first
        speed = f" ({rate(work / seconds, self._unit)})" if seconds >= MIN_RATE_SECONDS and work > 0 else ""
        return f"{amount(self._done, self._unit)} in {duration(seconds)}{speed}"


class Screen:
    """The output of progress: on a terminal, a live display stays below the printed lines; elsewhere, only lines.

    All that draw at the same time must share one screen: two live displays would overwrite each other.

    Args:
        console: where to write; by default stderr.
        clock: monotonic time in seconds.
    """

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        # Set explicitly: with FORCE_COLOR, rich would assume a terminal and write cursor movements to log files.
        self._console = console or Console(stderr=True, force_terminal=sys.stderr is not None and sys.stderr.isatty())
        self.clock = clock
        self._live: Live | None = None
        self._drawn = -math.inf
        self._is_gone = False

    @property
    def is_live(self) -> bool:
        return self._console.is_terminal and not self._console.is_dumb_terminal

    @property
    def width(self) -> int:
        return self._console.width

    def draw(self, picture: Callable[[], RenderableType]) -> None:
        """Replaces the live display, at most every REDRAW_SECONDS. No thread is used: forks and signals stay simple."""
        now = self.clock()
        if now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._write(self._live.start)
        live, content = self._live, picture()
        self._write(lambda: live.update(content, refresh=True))

    def print(self, text: str) -> None:
        self._write(lambda: self._console.print(Text(text), soft_wrap=True))

    def close(self) -> None:
        if self._live:
            self._write(self._live.stop)
            self._live = None
        self._drawn = -math.inf

    def _write(self, write: Callable[[], None]) -> None:
        """Writes, but ignores a closed pipe or a full disk behind stderr: they must not end the reported work."""
        if self._is_gone:
            return
        try:
            write()
        except (OSError, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code != RICH_BROKEN_PIPE_CODE:  # a signal stops the program
                raise
            self._is_gone = True
            self._console.file = io.StringIO()


def _bar_and_text(line: str, done: float | None, width: int) -> RenderableType:
    """One line: the bar, if the terminal is wide enough, and the figures."""
    text = Text(line, no_wrap=True, overflow="ellipsis")
    if done is None or width < MIN_WIDTH_WITH_BAR:
        return text
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total=1.0, completed=done, width=BAR_WIDTH), text)
    return grid


def _number(record: Mapping[str, Any], name: str) -> float:
    """A figure of a record; NaN if it is missing."""
    return float(record.get(name, math.nan))
