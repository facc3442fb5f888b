"""Device, precision, threads and compilation, chosen once and passed on as one value."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from acorn.config import TrainConfig
from acorn.errors import UsageError
from acorn.runtime.fp16_product import Fp16Product, fp16_product_library
from acorn.runtime.memory import kept_for_reuse

Precision = Literal["fp32", "bf16", "fp16"]

COMPILE_SECONDS = 30
"""What torch.compile costs before the first step with nothing in its cache: 24 on two fast cores, less beside a GPU."""

COMPILED_GAIN = {"fp32": 0.2, "bf16": 0.3, "fp16": 0.3}
"""How much faster compiled steps are, at least (docs/performance.md; fp16 is taken to be like bf16).

Matrix products take most of a step, and no compiler makes them faster.
"""


WORTH_ROUNDING = {"bf16": 1.3, "fp16": 1.2}
"""How much faster products have to be on a CPU for `auto` to take them. bf16's conversions cost some of it again;
those of fp16 are part of a product. Seen on CPUs that have them: 0.5 and 7; 1.3 to 1.7."""


@dataclass(frozen=True)
class Runtime:
    """How this machine computes. Choosing it changes nothing; `start` does."""

    device: str
    precision: Precision
    compile: bool
    threads: int
    deterministic: bool
    reasons: tuple[str, ...] = ()
    fp16_products: bool = False
    """On a CPU: only products are in fp16, of tensors that stay in fp32 (fp16_product.py); the network is told to."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what is between products."""
        if self.fp16_products:
            return torch.float32
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """PyTorch's matrix products in this precision inside the block; parameters stay in fp32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)

    def fp16_product(self) -> Fp16Product | None:
        """What multiplies fp32 tensors in fp16, where this runtime does."""
        if not self.fp16_products:
            return None
        library = fp16_product_library()
        if isinstance(library, str):
            raise RuntimeError(f"this runtime was chosen where fp16 products were to be had: {library}")
        return Fp16Product(library, self.threads)

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """Sets PyTorch's threads and determinism and the process's memory for the block, and puts them back."""
        threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
        fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        if self.deterministic and self.device == "cuda":
            # cuBLAS reads this when it starts; without it its results depend on which stream runs first.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(self.threads)
        self._set_deterministic(2 if self.deterministic else 0)
        # Made for finding reads of memory that nothing was written to; it took a tenth of every step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            with kept_for_reuse():
                yield
        finally:
            torch.set_num_threads(threads)
            self._set_deterministic(deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]

    def _set_deterministic(self, mode: int) -> None:
        """0: off, 1: warn, 2: refuse. The first way tells the compiler, too, and loads it, which takes a second."""
        if self.compile:
            torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
        else:
            torch.set_deterministic_debug_mode(mode)


def choose_runtime(train: TrainConfig, expected_seconds: float | None = None) -> Runtime:
    """What `train` asks for, with every `auto` decided for this machine.

    Args:
        expected_seconds: how long the run will be, if that is known; decides whether compiling pays.

    Raises:
        UsageError: the device or precision asked for is not to be had here.
    """
    device, device_reason = _choose_device(train.device)
    threads = train.threads or usable_cores()
    is_wanted = train.precision in ("auto", "fp16")
    lacking = _why_no_fp16_products(device, train.compile is True) if is_wanted else "not asked for"
    precision, precision_reason = _choose_precision(device, train.precision, threads, lacking)
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


def runtime_for_inference(device: str, precision: str) -> Runtime:
    """The runtime of a command that only reads a model: fp32 on a CPU unless asked otherwise, never compiled.

    Args:
        precision: `int8` is about weights, which the command rounds; it computes as with `auto`.

    Raises:
        UsageError: the device or precision is not to be had here, or unknown.
    """
    devices, precisions = ("auto", "cpu", "cuda", "mps"), ("auto", "fp32", "bf16", "fp16", "int8")
    for option, value, known in (("--device", device, devices), ("--precision", precision, precisions)):
        if value not in known:
            raise UsageError(f"{value!r} is not known.", where=option, mend=f"choose one of {', '.join(known)}")
    chosen, device_reason = _choose_device(device)
    wanted = "auto" if precision == "int8" else precision
    if wanted == "auto" and chosen == "cpu":
        wanted = "fp32"
    kind, precision_reason = _choose_precision(chosen, wanted, usable_cores(), "only training has products of its own")
    return Runtime(chosen, kind, False, usable_cores(), True, (device_reason, precision_reason))


def available_devices() -> list[str]:
    """Names of the devices that PyTorch finds here."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, found in there.items() if found]


def is_available(device: str) -> bool:
    """Whether a run can have `device` here; `auto` always."""
    return device == "auto" or device in available_devices()


def check_device(device: str) -> None:
    """Refuses a device that is not there, before anything is measured.

    Raises:
        UsageError: the others are named.
    """
    _choose_device(device)


def usable_cores() -> int:
    """Cores this process may use (its affinity, where the system tells)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def multiplies_bf16(device: str) -> bool:
    """Whether the hardware has bf16 products; emulated ones are a hundred times slower than fp32 on a CPU."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "mps":
        return False
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("amx_tile") or has.get("bf16"))


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
    """FLOP/s of a large matrix product in the runtime's precision: the machine's peak as it stands now."""
    n = 2048 if runtime.device == "cpu" else 8192
    multiply = _product_of(runtime, n)
    best = float("inf")
    multiply()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        best = min(best, _seconds_of(runtime.device, multiply))
    return 2 * n**3 / best


def _product_of(runtime: Runtime, n: int) -> Callable[[], Tensor]:
    """Multiplies two square matrices of n as a network does on `runtime`."""
    generator = torch.Generator().manual_seed(0)  # leaves the random numbers of a run alone
    a, b = (torch.randn(n, n, generator=generator).to(runtime.device, runtime.dtype) for _ in range(2))
    product = runtime.fp16_product() or torch.mm
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


def _choose_device(wanted: str) -> tuple[str, str]:
    there = available_devices()
    if wanted != "auto":
        if wanted not in there:
            raise UsageError(
                f"The device {wanted} is not available here.",
                where="train.device",
                mend=f"choose one of {', '.join(there)}, or auto",
            )
        return wanted, "as asked"
    if "cuda" in there:
        return "cuda", torch.cuda.get_device_name()
    return ("mps", "Apple GPU") if "mps" in there else ("cpu", "no GPU found")


def _choose_precision(device: str, wanted: str, threads: int, lacking: str | None) -> tuple[Precision, str]:
    """Args: lacking: why fp16 products of fp32 tensors are not to be had; None: they are."""
    has_bf16 = multiplies_bf16(device)
    if wanted == "auto":
        if device == "cpu":
            return _fastest_on_a_cpu(threads, has_bf16, lacking)
        if has_bf16:
            return "bf16", "the hardware multiplies it"
        if device == "cuda":
            return "fp16", "this GPU has no bf16 products"
        return "fp32", "no bf16 products in this hardware"
    if wanted == "bf16" and not has_bf16:
        return "bf16", "as asked, though this hardware only emulates it: expect it to be slow"
    if wanted == "fp16" and device == "cpu" and lacking:
        return "fp16", f"as asked, and PyTorch's own, which is no faster than fp32 on a CPU: {lacking}"
    return wanted, "as asked"  # type: ignore[return-value]


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
    library = fp16_product_library()
    return library if isinstance(library, str) else None


def _choose_compile(
    device: str, wanted: str | bool, precision: Precision, expected_seconds: float | None
) -> tuple[bool, str]:
    if isinstance(wanted, bool):
        return wanted, "as asked"
    if device == "mps":
        return False, "not on this device"
    if device == "cpu":  # what stands between products is in C (train/native_block.py)
        return False, "not on a CPU, unless asked for"
    gain = COMPILED_GAIN[precision]
    if expected_seconds is not None and expected_seconds * gain / (1 + gain) <= COMPILE_SECONDS:
        return False, f"the run is too short to earn {COMPILE_SECONDS} s of compiling back"
    return True, "the run is long enough to earn compiling back"
