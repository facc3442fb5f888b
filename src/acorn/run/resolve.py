"""The runtime of a training run: device, precision, threads and compilation, every `auto` decided for this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from acorn.config import TrainConfig
from acorn.kernels.build import Unavailable
from acorn.kernels.matmul import fp16_library, fp16_matmul
from acorn.runtime.device import (
    Precision,
    Runtime,
    choose_device,
    choose_precision,
    multiplies_bf16,
    usable_cores,
)

COMPILE_SECONDS = 30
"""What torch.compile costs before the first step with nothing in its cache: 24 on two fast cores, less beside a GPU."""

COMPILED_GAIN = {"fp32": 0.2, "bf16": 0.3, "fp16": 0.3}
"""How much faster compiled steps are, at least (docs/performance.md; fp16 is taken to be like bf16).

Matrix products take most of a step, and no compiler makes them faster.
"""


WORTH_ROUNDING = {"bf16": 1.3, "fp16": 1.2}
"""How much faster products have to be on a CPU for `auto` to take them. bf16's conversions cost some of it again;
those of fp16 are part of a product. Seen on CPUs that have them: 0.5 and 7; 1.3 to 1.7."""


def choose_runtime(train: TrainConfig, expected_seconds: float | None = None) -> Runtime:
    """What `train` asks for, with every `auto` decided for this machine.

    Args:
        expected_seconds: how long the run will be, if that is known; decides whether compiling pays.

    Raises:
        UsageError: the device or precision asked for is not to be had here.
    """
    device, device_reason = choose_device(train.device)
    threads = train.threads or usable_cores()
    is_wanted = train.precision in ("auto", "fp16")
    lacking = _why_no_fp16_products(device, train.compile is True) if is_wanted else "not asked for"
    if device == "cpu" and train.precision == "auto":
        precision, precision_reason = _fastest_on_a_cpu(threads, multiplies_bf16(device), lacking)
    else:
        precision, precision_reason = choose_precision(device, train.precision, lacking)
    compiled, compile_reason = _choose_compile(device, train.compile, precision, expected_seconds)
    return Runtime(
        device,
        precision,
        compiled,
        threads,
        train.deterministic,
        (
            f"device {device}: {device_reason}",
            f"precision {precision}: {precision_reason}",
            f"compile {'on' if compiled else 'off'}: {compile_reason}",
            f"threads {threads}: {'as asked' if train.threads else 'one for each core this process may use'}",
        ),
        precision == "fp16" and lacking is None,
    )


def speedup_of(precision: Precision, threads: int) -> float:
    """How many times as fast as fp32 the CPU multiplies in bf16 or fp16, measured in a tenth of a second.

    That it has instructions for it does not say: AVX512-BF16 halves the rate on some (docs/lab-notebook.md).
    """
    n = 1024 if threads <= 8 else 2048
    fp32 = _product_of(Runtime("cpu", "fp32", False, threads, True), n)
    other = _product_of(Runtime("cpu", precision, False, threads, True, fp16_products=precision == "fp16"), n)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pairs = [(_seconds_of("cpu", fp32), _seconds_of("cpu", other)) for _ in range(5)]
    finally:
        torch.set_num_threads(before)
    return min(seconds for seconds, _ in pairs) / min(seconds for _, seconds in pairs)


def measure_peak(runtime: Runtime, seconds: float = 0.3) -> float:
    """FLOP/s of the fastest of some large matmuls in the runtime's precision, as the machine is now."""
    n = peak_size(runtime.device)
    multiply = _product_of(runtime, n)
    best = float("inf")
    multiply()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        best = min(best, _seconds_of(runtime.device, multiply))
    return 2 * n**3 / best


def peak_size(device: str) -> int:
    """Rows and columns of the matrices that `measure_peak` multiplies."""
    return 2048 if device == "cpu" else 8192


def _product_of(runtime: Runtime, n: int) -> Callable[[], Tensor]:
    """Multiplies two square matrices of n as a network does on `runtime`."""
    generator = torch.Generator().manual_seed(0)  # leaves the random numbers of a run alone
    a, b = (torch.randn(n, n, generator=generator).to(runtime.device, runtime.dtype) for _ in range(2))
    product = fp16_matmul(runtime) or torch.mm
    return lambda: product(a, b)


def _seconds_of(device: str, multiply: Callable[[], Tensor]) -> float:
    _wait_for(device)
    start = time.perf_counter()
    multiply()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def _fastest_on_a_cpu(threads: int, has_bf16: bool, lacking: str | None) -> tuple[Precision, str]:
    """bf16 where that is worth its rounding, else fp16 where that is, else fp32. No CPU was seen to be fast at both."""
    tried = []
    candidates: list[tuple[Precision, bool]] = [("bf16", has_bf16), ("fp16", lacking is None)]
    for precision, there in candidates:
        if there:
            speedup = speedup_of(precision, threads)
            tried.append(f"{precision} products are {speedup:.1f} times as fast as fp32 ones here")
            if speedup >= WORTH_ROUNDING[precision]:
                return precision, tried[-1]
    if not has_bf16:
        tried.append("no bf16 products in this hardware")
    if lacking:
        tried.append(f"fp16: {lacking}")
    return "fp32", ", ".join(tried)


def _why_no_fp16_products(device: str, compiled: bool) -> str | None:
    """Why a network cannot have its products in fp16 of tensors in fp32; None: it can."""
    if device != "cpu":
        return "they are for CPUs"
    if compiled:
        return "a network that is compiled has PyTorch's products"
    library = fp16_library()
    return library.reason if isinstance(library, Unavailable) else None


def _choose_compile(
    device: str, wanted: str | bool, precision: Precision, expected_seconds: float | None
) -> tuple[bool, str]:
    if isinstance(wanted, bool):
        return wanted, "as asked"
    if device == "mps":
        return False, "not on this device"
    if device == "cpu":  # what stands between products is in C (kernels/block.py)
        return False, "not on a CPU, unless asked for"
    gain = COMPILED_GAIN[precision]
    if expected_seconds is not None and expected_seconds * gain / (1 + gain) <= COMPILE_SECONDS:
        return False, f"the run is too short to earn {COMPILE_SECONDS} s of compiling back"
    return True, "the run is long enough to earn compiling back"
