"""How much memory a run may still take."""

from __future__ import annotations

from pathlib import Path

import torch

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
MEMINFO = Path("/proc/meminfo")


def available_memory(device: str) -> int | None:
    """Bytes that this process can still take on `device`, or None where the system does not tell.

    On a CPU the lesser of the kernel's estimate (MemAvailable) and what the cgroup leaves: past either the kernel
    kills the process without a word.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device != "cpu":
        return None
    limits = [value for value in (_mem_available(), _cgroup_left()) if value is not None]
    return min(limits) if limits else None


def _mem_available() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _cgroup_left() -> int | None:
    try:
        limit = CGROUP_LIMIT.read_text().strip()
        return None if limit == "max" else max(0, int(limit) - int(CGROUP_USED.read_text()))
    except (OSError, ValueError):
        return None
