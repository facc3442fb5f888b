"""The peak is measured once and stored, so that later noise changes no figure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from acorn.run import peak as module
from acorn.run.peak import ExceededPeak, machine_peak, measure_peak
from acorn.runtime.device import Runtime

RUNTIME = Runtime("cpu", "fp32", False, 2, True)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """Results of successive measurements in FLOP/s. A measurement beyond the last one fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values: list[float] = []

    def measure(runtime: Runtime, seconds: float) -> float:
        return values.pop(0)

    monkeypatch.setattr(module, "measure_peak", measure)
    return values


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "acorn"


def test_the_peak_is_measured_until_it_stops_rising_and_then_stored(rates: list[float], kept: Path) -> None:
    rates += [0.8e11, 1.1e11, 1.105e11, 0.5e11]
    peak = machine_peak(RUNTIME)
    assert peak.flops == 1.105e11
    assert rates == []
    assert str(peak) == "0.111 TFLOP/s (matmuls of 2,048 x 2,048 in fp32 on 2 threads)"
    rates += [0.3e11, 0.3e11, 0.3e11]  # noise
    assert machine_peak(RUNTIME) == peak
    assert len(rates) == 3
    (file,) = kept.iterdir()
    assert json.loads(file.read_text())["flops"] == 1.105e11


@pytest.mark.parametrize("other", ["threads", "precision", "torch", "processor"])
def test_each_kind_of_runtime_has_its_own_peak(rates: list[float], monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    rates += [1e11] * 3
    machine_peak(RUNTIME)
    rates += [2e11] * 3
    runtime = RUNTIME
    if other == "threads":
        runtime = Runtime("cpu", "fp32", False, 1, True)
    elif other == "precision":
        runtime = Runtime("cpu", "bf16", False, 2, True)
    elif other == "torch":
        monkeypatch.setattr(module.torch, "__version__", "99.0")
    else:
        monkeypatch.setattr(module, "processor", lambda: ["another one"])
    assert machine_peak(runtime).flops == 2e11


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flops": 3e15}', '{"flops": "fast"}'])
def test_a_damaged_file_is_replaced(rates: list[float], kept: Path, content: str) -> None:
    rates += [1e11] * 3
    machine_peak(RUNTIME)
    (file,) = kept.iterdir()
    whole = file.read_text()
    file.write_text(content)
    rates += [1e11] * 3
    assert machine_peak(RUNTIME).flops == 1e11
    assert file.read_text() == whole


def test_without_a_cache_the_peak_is_measured_each_time(rates: list[float], kept: Path) -> None:
    kept.write_text("a file in the folder's place")
    rates += [1e11] * 3 + [2e11] * 3
    assert [machine_peak(RUNTIME).flops for _ in range(2)] == [1e11, 2e11]


@pytest.mark.parametrize(("again", "reached"), [(2e11, 1.6e11), (1.5e11, 1.6e11)])
def test_a_peak_that_training_exceeds_is_measured_again_and_stored(
    rates: list[float], kept: Path, again: float, reached: float
) -> None:
    rates += [1e11] * 3  # something else uses the machine
    busy, told = machine_peak(RUNTIME), []
    exceeded = ExceededPeak(busy, RUNTIME, told.append)
    rates += [again] * 3
    peak = exceeded(reached)
    assert peak == max(again, reached)
    assert [str(found) for found in told] == [f"{peak / 1e12:.3g} TFLOP/s ({busy.of})"]
    assert exceeded(2.2e11) == 2.2e11  # matmuls are not timed at every step
    assert len(told) == 1
    assert rates == []
    assert machine_peak(RUNTIME) == told[0]


def test_without_memory_to_measure_the_peak_is_what_training_reached(
    rates: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates += [1e11] * 3
    exceeded = ExceededPeak(machine_peak(RUNTIME), RUNTIME, lambda peak: None)

    def fail(runtime: Runtime, seconds: float) -> float:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "measure_peak", fail)
    assert exceeded(1.6e11) == 1.6e11


def test_the_measured_peak_is_plausible() -> None:
    assert 1e8 < measure_peak(RUNTIME, seconds=0.01) < 1e15
