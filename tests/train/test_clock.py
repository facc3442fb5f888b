"""The clock of a run."""

from __future__ import annotations

import pytest

from acorn.train.clock import RunClock


class Machine:
    """A wall clock and CPU time, moved by hand."""

    def __init__(self, cores: int = 2) -> None:
        self.wall, self.processor, self.cores = 100.0, 7.0, cores
        self.clock = RunClock(lambda: self.wall, lambda: self.processor)

    def work(self, seconds: float, cores: float | None = None, poll: bool = True) -> None:
        self.wall += seconds
        self.processor += seconds * (self.cores if cores is None else cores)
        if poll:
            self.clock.seconds()

    def pause(self, seconds: float) -> None:
        self.wall += seconds


@pytest.mark.fault(45)
@pytest.mark.parametrize("cores", [1, 2, 8])
@pytest.mark.parametrize("pause", [10.0, 20.0, 86_400.0])
def test_a_pause_does_not_count(cores: int, pause: float) -> None:
    """Fault 45: also in the middle of a step, and only once; work before the pause counts."""
    machine = Machine(cores)
    for _ in range(50):
        machine.work(0.1)
    for _ in range(2):
        machine.work(0.08, poll=False)  # since the last reading
        machine.pause(pause)
        machine.work(0.01)
    machine.work(0.1)
    assert machine.clock.seconds() == pytest.approx(5.1, abs=0.25)
    assert machine.clock.take_pause() == pytest.approx(2 * pause, abs=0.25)
    assert machine.clock.take_pause() == 0


@pytest.mark.parametrize("cores", [1.0, 2.0, 0.5])
def test_work_that_blocks_the_polling_thread_counts(cores: float) -> None:
    machine = Machine()
    machine.work(60.0, cores)
    assert machine.clock.seconds() == 60
    assert machine.clock.take_pause() == 0


def test_waiting_counts_while_the_thread_polls() -> None:
    """Such as for a disk or a GPU."""
    machine = Machine()
    for _ in range(100):
        machine.work(0.1, 0)
    assert machine.clock.seconds() == pytest.approx(10)


def test_short_gaps_count() -> None:
    machine = Machine()
    for _ in range(10):
        machine.work(1.9, 0)
    assert machine.clock.seconds() == pytest.approx(19)


def test_a_thread_polls_during_the_run() -> None:
    looks = []

    def wall() -> float:
        looks.append(1)
        return 0.0

    with RunClock(wall) as clock:
        before = len(looks)
        clock._ended.wait(0.35)
        assert clock.seconds() == 0
    assert len(looks) > before + 1
    assert not clock._thread.is_alive()
