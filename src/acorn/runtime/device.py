"""The runtime (device, precision, threads, determinism), chosen once and passed on; and what the hardware supports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch

from acorn.runtime.memory import freed_memory_reused

Precision = Literal["fp32", "bf16", "fp16"]
Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """The value of one setting of a runtime, and why. As text it is a line for the terminal and environment.json.

    Attributes:
        asked: whether the user set it; otherwise acorn chose it.
        reason: why acorn chose this value; for a value that the user set, a remark on it, if any.
    """

    setting: str
    value: Value
    asked: bool
    reason: str = ""

    @property
    def has_remark(self) -> bool:
        """Whether the user set it and there is a remark on it."""
        return self.asked and bool(self.reason)

    def __str__(self) -> str:
        value = ("off", "on")[self.value] if isinstance(self.value, bool) else self.value
        reasons = ("as asked", self.reason) if self.asked else (self.reason,)
        return f"{self.setting} {value}: {', '.join(filter(None, reasons))}"


@dataclass(frozen=True)
class Runtime:
    """How a command computes on this machine. `start` applies it."""

    device: str
    precision: Precision
    compile: bool
    threads: int
    deterministic: bool
    choices: tuple[Choice[object], ...] = ()
    fp16_matmuls: bool = False
    """On a CPU: only matmuls are in fp16, of tensors that stay in fp32 (kernels/matmul.py)."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of activations between matmuls."""
        if self.fp16_matmuls:
            return torch.float32
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Inside the block, PyTorch's matmuls use this precision; parameters stay in fp32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """Sets PyTorch's threads and determinism and the allocator's behavior for the block, and restores them."""
        threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
        fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        if self.deterministic and self.device == "cuda":
            # cuBLAS reads this when it initializes; without it, results depend on the order of streams.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(self.threads)
        self._set_deterministic(2 if self.deterministic else 0)
        # A debugging aid that fills uninitialized memory; it slows down every step (docs/lab-notebook.md).
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            with freed_memory_reused():
                yield
        finally:
            torch.set_num_threads(threads)
            self._set_deterministic(deterministic)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]

    def _set_deterministic(self, mode: int) -> None:
        """0: off, 1: warn, 2: refuse. The first function also configures torch.compile, and loads it for that: slow."""
        if self.compile:
            torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)
        else:
            torch.set_deterministic_debug_mode(mode)


def available_devices() -> list[str]:
    """Names of the devices that PyTorch finds on this machine."""
    devices = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, is_found in devices.items() if is_found]


def is_available(device: str) -> bool:
    """Whether a run can use `device` on this machine; always true for `auto`."""
    return device == "auto" or device in available_devices()


def usable_cores() -> int:
    """Cores that this process may use (its CPU affinity, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def multiplies_bf16(device: str) -> bool:
    """Whether the hardware has bf16 matmuls; on a CPU, emulated ones are much slower than fp32."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device == "mps":
        return False
    has: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("amx_tile") or has.get("bf16"))


def matmul_dtype(device: str, own: torch.dtype) -> torch.dtype:
    """The type of matmuls on a device of this kind: autocast's inside its block, else that of the tensors."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
