"""The time of a step is put together from what was measured of one and of two layers."""

from __future__ import annotations

import math

import pytest

from acorn.config import Config, ModelConfig, TrainConfig
from acorn.runtime.device import COMPILED_GAIN, choose_runtime
from acorn.train import calibration


def config_of(*, n_layer: int, batch_size: int, compile: bool = False) -> Config:
    model = ModelConfig(n_layer=n_layer, n_embd=16, n_head=2, block_size=8, vocab_size=20)
    train = TrainConfig(steps=1, batch_size=batch_size, device="cpu", precision="fp32", compile=compile)
    return Config(model=model, train=train)


@pytest.mark.parametrize("compiled", [False, True])
def test_layers_passes_and_the_update_add_up(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    seen = []

    def measured(config, runtime, depth, sequences):
        seen.append((depth, sequences))
        return {1: (1.0, 0.2), 2: (1.5, 0.3)}[depth]

    monkeypatch.setattr(calibration, "_measure", measured)
    config = config_of(n_layer=4, batch_size=12, compile=compiled)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=6)
    assert seen == [(1, 6), (2, 6)]
    gain = 1 + COMPILED_GAIN["fp32"] if compiled else 1
    assert seconds == pytest.approx(2 * (1.0 + 3 * 0.5) / gain + 0.2 + 3 * 0.1)


def test_a_long_pass_is_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def measured(config, runtime, depth, sequences):
        seen.append(sequences)
        return 1.0, 0.0

    monkeypatch.setattr(calibration, "_measure", measured)
    config = config_of(n_layer=1, batch_size=2048)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=2048)
    assert seen == [calibration.MOST_TOKENS["cpu"] // 8] * 2
    assert seconds == pytest.approx(2048 / seen[0])


def test_real_steps_are_measured() -> None:
    config = config_of(n_layer=2, batch_size=4)
    seconds = calibration.seconds_per_step(config, choose_runtime(config.train), micro_batch_size=2)
    assert 0 < seconds < math.inf
