"""Device, precision, threads and compilation as one value, which is chosen once and passed on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from acorn.errors import UsageError
from acorn.runtime.memory import kept_for_reuse

Precision = Literal["fp32", "bf16", "fp16"]


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
    chosen, device_reason = choose_device(device)
    wanted = "auto" if precision == "int8" else precision
    if wanted == "auto" and chosen == "cpu":
        wanted = "fp32"
    kind, precision_reason = choose_precision(chosen, wanted, "only training has products of its own")
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
    choose_device(device)


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


def choose_device(wanted: str) -> tuple[str, str]:
    """The device that `wanted` or `auto` comes to, and why.

    Raises:
        UsageError: it is not to be had here.
    """
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


def choose_precision(device: str, wanted: str, lacking: str | None) -> tuple[Precision, str]:
    """The precision that is asked for, or that `auto` comes to on a GPU, and why.

    Args:
        lacking: why fp16 products of fp32 tensors are not to be had; None: they are.
    """
    has_bf16 = multiplies_bf16(device)
    if wanted == "auto":
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
