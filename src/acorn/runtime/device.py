"""How acorn computes here, as one value that is chosen once and passed on; and what the hardware has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch

from acorn.runtime.memory import kept_for_reuse

Precision = Literal["fp32", "bf16", "fp16"]
Value = TypeVar("Value", covariant=True)


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """What one setting of a runtime came to, and why. As text it is a line for the terminal and environment.json.

    Attributes:
        asked: the setting was given; otherwise it was left to acorn.
        reason: why acorn chose this value; of one that was given, what its user should know of it, if anything.
    """

    setting: str
    value: Value
    asked: bool
    reason: str = ""

    @property
    def has_remark(self) -> bool:
        """Whether it was given, and is worth a word all the same."""
        return self.asked and bool(self.reason)

    def __str__(self) -> str:
        value = ("off", "on")[self.value] if isinstance(self.value, bool) else self.value
        reasons = ("as asked", self.reason) if self.asked else (self.reason,)
        return f"{self.setting} {value}: {', '.join(filter(None, reasons))}"


@dataclass(frozen=True)
class Runtime:
    """How this machine computes. Choosing it changes nothing; `start` does."""

    device: str
    precision: Precision
    compile: bool
    threads: int
    deterministic: bool
    choices: tuple[Choice[object], ...] = ()
    fp16_products: bool = False
    """On a CPU: only matmuls are in fp16, of tensors that stay in fp32 (kernels/matmul.py); the network is built so."""

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


def available_devices() -> list[str]:
    """Names of the devices that PyTorch finds here."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, found in there.items() if found]


def is_available(device: str) -> bool:
    """Whether a run can have `device` here; `auto` always."""
    return device == "auto" or device in available_devices()


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


def matmul_dtype(device: str, own: torch.dtype) -> torch.dtype:
    """The type that matmuls have on a device of this kind: autocast's inside its block, else that of the tensors."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
