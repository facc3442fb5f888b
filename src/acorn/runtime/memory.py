"""How much memory a run may still take."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from acorn.runtime import control_groups
from acorn.runtime.address_space import address_space_left

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")


def available_memory(device: str) -> int | None:
    """Bytes that this process can still take on `device`, or None where the system does not tell.

    On a CPU the least of the kernel's estimate (MemAvailable) and what control groups and `ulimit` leave: past the
    first two the kernel kills the process without a word, past the third libraries crash.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device != "cpu":
        return None
    limits = (_mem_available(), control_groups.memory_left(), address_space_left())
    return min((value for value in limits if value is not None), default=None)


def resident_memory() -> int:
    """Bytes that this process has in memory now; 0 where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)


def _mem_available() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


@contextlib.contextmanager
def kept_for_reuse() -> Iterator[None]:
    """Inside the block, memory that tensors give back stays with the process instead of going back to the system.

    A training step takes and frees the same large blocks again and again. glibc returns such blocks at once, and the
    system hands out each new page zeroed: a product whose result is 64 MB takes three times as long for that reason
    (docs/performance.md). Elsewhere than on glibc nothing happens.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    library.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _USUAL_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, _USUAL_THRESHOLD)
        library.malloc_trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt's settings (malloc.h)."""

_LARGEST, _USUAL_THRESHOLD = 2**30, 128 * 1024


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
