"""The peak FLOP/s of this machine, to compare training speed with: measured once, stored, and equal for all runs.

When it was measured at each start, noise could double a run's share of the peak. It is stored in the machine's cache
for each processor or GPU, version of PyTorch, precision and number of threads. It is measured again if the file is
missing, or if training turns out to be faster.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from acorn.errors import AcornError, DamageError
from acorn.files import read_sealed_json, write_sealed_json
from acorn.run.matmul_timing import matmul_on, seconds_of
from acorn.runtime.device import Runtime
from acorn.runtime.machine_cache import cache_folder, processor

ROUND_SECONDS, MAX_ROUNDS, ROUNDS_WITHOUT_GAIN = 0.3, 10, 2
"""The fastest matmul counts: measuring ends once this many rounds in a row gained less than 1 %."""


@dataclass(frozen=True)
class Peak:
    """A rate that this machine reaches.

    Attributes:
        flops: FLOP/s.
        of: what was measured, as text.
    """

    flops: float
    of: str

    def __str__(self) -> str:
        return f"{self.flops / 1e12:.3g} TFLOP/s ({self.of})"


def machine_peak(runtime: Runtime) -> Peak:
    """The stored peak of such a runtime. If there is none, it is measured for one to three seconds and stored.

    If the cache cannot be written, it is measured for this process alone.
    """
    name, of = _file_and_words(runtime)
    with contextlib.suppress(OSError, RuntimeError, DamageError):  # none is stored, or the file is damaged
        flops = read_sealed_json(cache_folder() / name).get("flops")
        if isinstance(flops, float) and flops > 0:
            return Peak(flops, of)
    peak = Peak(_measured(runtime), of)
    _keep(peak, runtime)
    return peak


class ExceededPeak:
    """Corrects the peak when training exceeds it.

    The peak was then measured while something else used the machine. It is measured once more, while training waits.
    The new peak is at least the rate that training reached.

    Args:
        told: called with the new peak.
    """

    def __init__(self, peak: Peak, runtime: Runtime, told: Callable[[Peak], None]) -> None:
        self.peak, self._runtime, self._told = peak, runtime, told
        self._is_measured = False

    def __call__(self, reached: float) -> float:
        """The new peak in FLOP/s, after training reached `reached` FLOP/s, which is more than the old one."""
        if self._is_measured:
            self.peak = replace(self.peak, flops=max(self.peak.flops, reached))
            return self.peak.flops
        self._is_measured = True
        measured = 0.0
        with contextlib.suppress(MemoryError, RuntimeError):  # the network may leave no memory for it
            measured = _measured(self._runtime)
        self.peak = replace(self.peak, flops=max(reached, measured))
        _keep(self.peak, self._runtime)
        self._told(self.peak)
        return self.peak.flops


def _file_and_words(runtime: Runtime) -> tuple[str, str]:
    """The name of the file that stores the peak of such a runtime, and what is measured, as text."""
    device = torch.cuda.get_device_name() if runtime.device == "cuda" else runtime.device
    n = peak_size(runtime.device)
    where = f"{runtime.threads} threads" if runtime.device == "cpu" else device
    of = f"matmuls of {n:,} x {n:,} in {runtime.precision} on {where}"
    key = (processor(), device, torch.__version__, runtime.precision, runtime.fp16_matmuls, runtime.threads, n)
    return f"peak-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.json", of


def _keep(peak: Peak, runtime: Runtime) -> None:
    """Stores the peak for later runs, if the cache can be written."""
    name, _ = _file_and_words(runtime)
    with contextlib.suppress(OSError, RuntimeError, AcornError):
        write_sealed_json(cache_folder() / name, {"flops": peak.flops, "of": peak.of, "torch": torch.__version__})


def measure_peak(runtime: Runtime, seconds: float = 0.3) -> float:
    """FLOP/s of the fastest of some large matmuls in the runtime's precision, measured now."""
    n = peak_size(runtime.device)
    multiply = matmul_on(runtime, n)
    best = float("inf")
    multiply()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        best = min(best, seconds_of(runtime.device, multiply))
    return 2 * n**3 / best


def peak_size(device: str) -> int:
    """Rows and columns of the matrices that `measure_peak` multiplies."""
    return 2048 if device == "cpu" else 8192


def _measured(runtime: Runtime) -> float:
    """FLOP/s of the fastest matmul."""
    best, gainless = 0.0, 0
    for _ in range(MAX_ROUNDS):
        flops = measure_peak(runtime, ROUND_SECONDS)
        gainless = gainless + 1 if flops < 1.01 * best else 0
        best = max(best, flops)
        if gainless == ROUNDS_WITHOUT_GAIN:
            break
    return best
