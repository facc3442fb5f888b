"""Memory that is available to a run, and how the process reuses freed memory."""

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
    """Bytes that this process can still allocate on `device`; None if the system does not say.

    On a CPU, the minimum of the kernel's estimate (MemAvailable) and what control groups and `ulimit` leave: beyond the
    first two the kernel kills the process, beyond the third libraries crash.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device != "cpu":
        return None
    limits = (_mem_available(), control_groups.memory_left(), address_space_left())
    return min((value for value in limits if value is not None), default=None)


def resident_memory() -> int:
    """Bytes of this process that are in memory now; 0 if the system does not say."""
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
def freed_memory_reused() -> Iterator[None]:
    """Inside the block, freed memory stays with the process instead of being returned to the system.

    A training step allocates and frees the same large blocks again and again. glibc returns such blocks to the system
    at once, and the system fills each new page with zeros, which makes large matmuls slower (docs/lab-notebook.md).
    Without glibc, this does nothing.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_THRESHOLD, _MAX_THRESHOLD_BYTES)
    library.mallopt(_M_TRIM_THRESHOLD, _MAX_THRESHOLD_BYTES)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD_BYTES)
        library.malloc_trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt (malloc.h)."""

_MAX_THRESHOLD_BYTES, _DEFAULT_THRESHOLD_BYTES = 2**30, 128 * 1024


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
