"""The time of a step is extrapolated from measurements of one and two layers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from acorn.config import Config, ModelConfig, TrainConfig
from acorn.progress import Quiet
from acorn.run import calibration
from acorn.run.resolve import COMPILED_GAIN, choose_runtime


def config_of(*, n_layer: int, batch_size: int, compile: bool = False) -> Config:
    model = ModelConfig(n_layer=n_layer, n_embd=16, n_head=2, block_size=8, vocab_size=20)
    train = TrainConfig(steps=1, batch_size=batch_size, device="cpu", precision="fp32", compile=compile)
    return Config(model=model, train=train)


class Clock:
    """Networks whose steps take 0.2 s, plus 1.0 s per micro-batch, with one layer; 0.1 and 0.5 s more with two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int, int, int]] = []
        monkeypatch.setattr(calibration, "MIN_SECONDS", 0.0)
        monkeypatch.setattr(calibration, "_Network", lambda config, runtime, depth, logits: Network(self, depth))


class Network:
    def __init__(self, clock: Clock, depth: int) -> None:
        self.clock, self.depth = clock, depth

    def step(self, passes: int, sequences: int) -> float:
        self.clock.seen.append((self.depth, passes, sequences))
        slow_at_first = 5.0 if len(self.clock.seen) < 6 else 0.0
        return {1: 0.2, 2: 0.3}[self.depth] + passes * {1: 1.0, 2: 1.5}[self.depth] + slow_at_first


@pytest.mark.parametrize("compiled", [False, True])
def test_the_time_of_a_step_is_extrapolated_to_its_layers_and_micro_batches(
    monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """The fastest of several rounds counts."""
    clock = Clock(monkeypatch)
    config = config_of(n_layer=4, batch_size=12, compile=compiled)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=6)
    one_turn = [(1, 1, 6), (1, 2, 6), (2, 1, 6), (2, 2, 6)]
    assert clock.seen == [(1, 1, 6)] * 2 + [(1, 2, 6), (2, 2, 6)] + one_turn * calibration.MIN_ROUNDS
    gain = 1 + COMPILED_GAIN["fp32"] if compiled else 1
    assert seconds == pytest.approx(2 * (1.0 + 3 * 0.5) / gain + 0.2 + 3 * 0.1)


def test_every_timed_step_is_reported_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[float] = []

    class Listening(Quiet):
        def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
            assert (task, total, unit) == (calibration.TASK, 0, "steps")
            heard.append(done)

    Clock(monkeypatch)
    config = config_of(n_layer=4, batch_size=12)
    calibration.seconds_per_step(config, choose_runtime(config.train), 6, Listening())
    assert heard == list(range(4 * calibration.MIN_ROUNDS + 1))


@pytest.mark.parametrize(("quick", "sequences"), [(0.1, 256), (10.0, 512)])
def test_a_large_micro_batch_is_measured_in_part(monkeypatch: pytest.MonkeyPatch, quick: float, sequences: int) -> None:
    """2,048 tokens, or twice as many if that is fast."""
    monkeypatch.setattr(calibration, "QUICK_STEP_SECONDS", quick)
    clock = Clock(monkeypatch)
    config = config_of(n_layer=1, batch_size=2048)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=2048)
    assert [seen for *_, seen in clock.seen[:2]] == [256, 256]
    assert {seen for *_, seen in clock.seen[2:]} == {sequences}
    assert seconds == pytest.approx(2048 / sequences + 0.2)


def test_measuring_a_slow_network_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    now = iter([0.0, 1e-9, 1e-9, 1.0])
    monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    config = config_of(n_layer=2, batch_size=4)
    monkeypatch.setattr(calibration, "MAX_SECONDS", 0.5)
    calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=4)
    assert clock.seen[4:] == [(1, 1, 4), (1, 2, 4), (2, 1, 4), (2, 2, 4)] * 2


@pytest.mark.parametrize(
    ("seconds", "depth", "wanted"),
    [([2.0, 3.0], 5, 6.0), ([2.0], 1, 2.0), ([-0.05, 0.05], 3, 0.1), ([0.05, -0.05], 3, 0.05), ([-1.0], 1, 0.0)],
)
def test_negative_differences_count_as_zero(seconds: list[float], depth: int, wanted: float) -> None:
    assert calibration._at_depth(seconds, depth) == pytest.approx(wanted)


def test_for_a_single_layer_only_one_network_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    config = config_of(n_layer=1, batch_size=4)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=4)
    assert {depth for depth, *_ in clock.seen} == {1}
    assert seconds == pytest.approx(1.0 + 0.2)


def test_steps_are_really_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MIN_SECONDS", 0.1)
    config = config_of(n_layer=2, batch_size=4)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=2)
    assert 0 < seconds < math.inf
