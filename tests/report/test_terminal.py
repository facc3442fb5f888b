from __future__ import annotations

import contextlib
import io
import re
import time

import pytest
from rich.console import Console

from acorn.report.terminal import Screen, TaskProgress, TrainingLine

RECORD = {"step": 120, "loss": 3.9123, "tokens_per_second": 12_345.0, "mfu": 0.41}


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A screen whose output the test can read."""

    def __init__(self, terminal: bool, width: int = 140) -> None:
        self.file = io.StringIO()
        self.clock = Clock()
        self.console = Console(
            file=self.file, force_terminal=terminal, width=width, color_system=None, legacy_windows=False
        )
        self.screen = Screen(self.console, self.clock)

    @property
    def text(self) -> str:
        return self.file.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@pytest.fixture
def log() -> Watched:
    return Watched(terminal=False)


def test_a_line_of_the_log_has_every_figure(log: Watched) -> None:
    line = TrainingLine(2000, log.screen)
    line.valid({"step": 100, "loss": 4.1, "bits_per_byte": 1.5})
    line.step(RECORD, 0.06, 754.0)
    assert log.lines == [
        "step 100  validation loss 4.1000 (1.500 bits per byte)",
        "step 120/2,000  loss 3.912  valid 4.100  12 min 34 s left  12.3K tokens/s  41 % of peak  (6 % done)",
    ]


def test_unknown_figures_are_left_out(log: Watched) -> None:
    line = TrainingLine(0, log.screen)
    line.step({"step": 1}, 0.0, None)
    line.step({"step": 2, "loss": 5.0}, 1.0, float("nan"))
    assert log.lines == ["step 1  (0 % done)", "step 2  loss 5.000  (100 % done)"]


def test_a_finished_run_has_no_time_left(log: Watched) -> None:
    TrainingLine(5, log.screen).step({"step": 5}, 1.0, 0.004)
    assert log.lines == ["step 5/5  (100 % done)"]


def test_the_log_gets_a_line_every_ten_seconds_and_at_the_end(log: Watched) -> None:
    line = TrainingLine(100, log.screen)
    for step in range(1, 41):
        line.step({"step": step}, step / 100, None)
        log.clock.now += 1
    line.close()
    line.close()
    steps = [int(match[1]) for text in log.lines if (match := re.match(r"step (\d+)/", text))]
    assert steps == [1, 11, 21, 31, 40]


def test_the_log_is_plain_text_and_never_cut(log: Watched) -> None:
    narrow = Watched(terminal=False, width=20)
    TrainingLine(2000, narrow.screen).step(RECORD, 0.06, 754.0)
    assert len(narrow.lines) == 1
    assert narrow.lines[0].endswith("(6 % done)")
    assert "\x1b" not in narrow.text


def test_a_terminal_has_one_live_line_that_fits(log: Watched) -> None:
    watched = Watched(terminal=True, width=40)
    line = TrainingLine(2000, watched.screen)
    line.step(RECORD, 0.06, 754.0)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", watched.text).strip()
    assert shown.startswith("step 120/2,000  loss 3.912")
    assert len(shown) <= 40
    assert "\n" not in shown


def test_the_live_line_is_drawn_ten_times_a_second_at_most() -> None:
    watched = Watched(terminal=True)
    line = TrainingLine(2000, watched.screen)
    for step in range(100):
        line.step({"step": step}, 0.1, None)
        watched.clock.now += 0.01
    assert watched.text.count("step ") == 10


def test_a_sample_cannot_move_the_cursor(log: Watched) -> None:
    TrainingLine(10, log.screen).sample(
        5, "a\x07", "clear \x1b[2J\r bell \x07 [bold]kept[/bold] \u202e turned\nnext \ud800"
    )
    assert log.lines == [
        'step 5  sample from "a\\x07":',
        "    clear \\x1b[2J\\r bell \\x07 [bold]kept[/bold] \\u202e turned",
        "    next \\ud800",
    ]


def test_notes_are_printed_immediately_and_without_markup(log: Watched) -> None:
    TrainingLine(10, log.screen).note("saved [red]x[/red]\x1b]0;title\x07")
    TaskProgress(log.screen).note("second")
    assert log.lines == ["saved [red]x[/red]\\x1b]0;title\\x07", "second"]


def test_output_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    line = TrainingLine(10)
    line.step({"step": 1}, 0.1, None)
    line.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "step 1/10  (10 % done)\n"


def test_a_log_file_stays_plain_when_color_is_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    line = TrainingLine(10)
    line.step({"step": 1}, 0.1, None)
    line.close()
    assert "\x1b" not in capsys.readouterr().err


def test_a_task_prints_its_start_progress_and_end(log: Watched) -> None:
    progress = TaskProgress(log.screen)
    for second in range(21):
        progress.at("reading", second * 1e6, 20e6)
        log.clock.now += 1
    log.clock.now -= 1
    progress.end("reading")
    assert log.lines == [
        "reading ...",
        "reading: 50 %, 10 MB of 20 MB, 1 MB/s, 10 s left",
        "reading: 100 %, 20 MB of 20 MB, 1 MB/s, 0.0 s left",
        "reading: 20 MB in 20 s (1 MB/s)",
    ]


def test_the_time_left_follows_the_recent_rate_not_the_average(log: Watched) -> None:
    """100 MB in the first second, then 1 MB/s: after a minute, the average would give 15 s."""
    progress = TaskProgress(log.screen)
    progress.at("reading", 0, 200e6)
    for second in range(61):
        log.clock.now += 1
        progress.at("reading", 100e6 + second * 1e6, 200e6)
    assert log.lines[-1] == "reading: 80 %, 159 MB of 200 MB, 1 MB/s, 41 s left"


def test_without_a_total_no_time_left_is_shown(log: Watched) -> None:
    progress = TaskProgress(log.screen)
    progress.at("reading", 0, 0, "documents")
    log.clock.now += 10
    progress.at("reading", 5000, 0, "documents")
    assert log.lines[-1] == "reading: 5,000 documents, 500 documents/s"


def test_units_are_singular_for_one_and_slow_work_shows_time_per_unit(log: Watched) -> None:
    progress = TaskProgress(log.screen)
    progress.at("runs", 0, 6, "runs")
    for done in (1, 2):
        log.clock.now += 30
        progress.at("runs", done, 6, "runs")
    progress.end("runs")
    assert log.lines == [
        "runs ...",
        "runs: 17 %, 1 of 6 runs, 30 s per run, 2 min 30 s left",
        "runs: 33 %, 2 of 6 runs, 30 s per run, 2 min 00 s left",
        "runs: 2 runs in 1 min 00 s (30 s per run)",
    ]


def test_a_jump_of_the_system_clock_has_no_effect(log: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 32."""
    progress = TaskProgress(Screen(log.console))
    line = TrainingLine(10, Screen(log.console))
    monkeypatch.setattr(time, "time", lambda: pytest.fail("the system clock was asked"))
    progress.at("reading", 0, 10)
    progress.at("reading", 10, 10)
    progress.end("reading")
    line.step(RECORD, 0.5, 10.0)
    line.close()
    assert log.lines[0] == "reading ..."


def test_a_training_line_and_a_task_share_one_live_display() -> None:
    watched = Watched(terminal=True)
    line, progress = TrainingLine(10, watched.screen), TaskProgress(watched.screen)
    line.step({"step": 1}, 0.1, None)
    watched.clock.now += 1
    progress.at("scoring", 1, 2, "documents")
    progress.end("scoring")
    watched.clock.now += 1
    line.step({"step": 2}, 0.2, None)
    line.close()
    hidden, shown = watched.text.count("\x1b[?25l"), watched.text.count("\x1b[?25h")
    assert hidden == shown == 2
    assert watched.text.count("scoring: 2 documents in") == 0
    assert "scoring: 1 document in 0.0 s" in watched.text


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
def test_a_closed_stderr_does_not_end_the_work(terminal: bool, error: OSError) -> None:
    """A pipe to `head`, a full disk behind a log file, a closed terminal."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

        def flush(self) -> None:
            raise error

    screen = Screen(Console(file=Gone(), force_terminal=terminal, width=100, legacy_windows=False), Clock())
    line, progress = TrainingLine(10, screen), TaskProgress(screen)
    progress.at("reading", 1, 2)
    line.step(RECORD, 0.5, 3.0)
    line.note("something odd")
    progress.end("reading")
    line.close()
    progress.close()


@pytest.mark.parametrize(("code", "is_raised"), [(143, True), (129, True), (1, False)])
def test_a_stop_while_a_line_is_written_is_not_swallowed(code: int, is_raised: bool) -> None:
    """The handler of a signal raises SystemExit wherever the program is; rich exits with 1 on a broken pipe."""

    class Interrupted(io.StringIO):
        def write(self, text: str) -> int:
            raise SystemExit(code)

    screen = Screen(Console(file=Interrupted(), force_terminal=False))
    with pytest.raises(SystemExit) if is_raised else contextlib.nullcontext():
        screen.print("a line")
