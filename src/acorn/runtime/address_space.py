"""Limits on a process's address space (`ulimit -v`) and data (`ulimit -d`), checked before libraries exceed them.

PyTorch, oneDNN, OpenBLAS and OpenMP reserve address space for code, threads and buffers. If the system refuses it, they
crash, abort or hang in ways that a program cannot catch. So the bytes they need are compared with the limit before they
are loaded. Without a limit, nothing is checked.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Literal

from acorn.errors import ResourceError

STATUS = Path("/proc/self/status")
LIMITS = (("ulimit -v", "RLIMIT_AS", "VmSize"), ("ulimit -d", "RLIMIT_DATA", "VmData"))
"""The command that sets a limit, the limit's name, and the entry of /proc/self/status that it applies to."""

Purpose = Literal["numpy", "torch", "training"]

NUMPY_BYTES, TORCH_BYTES, TRAINING_BYTES = 290 * 10**6, 250 * 10**6, 420 * 10**6
"""Bytes needed in addition to PyTorch's shared libraries: by NumPy; by PyTorch; on top of that by training's threads,
buffers and plots. Measured on Linux with 2 cores and PyTorch 2.13: with 10 % less, commands on tiny models crashed."""

STEP_BYTES = 160 * 10**6
"""The part of TRAINING_BYTES that is still needed when a run plans its step, without tensors."""

THREAD_BYTES = 16 * 2**20
"""Bytes for each thread above two: its stacks in the thread pools of OpenMP and of the tokenizers library."""

OUT_OF_MEMORY_MESSAGES = (
    *("DefaultCPUAllocator: ", "can't allocate memory", "Cannot allocate memory", "out of memory"),
    *("could not create a primitive", "could not create a memory", "failed to map segment", "can't start new thread"),
)
"""Parts of libraries' error messages when memory is refused. Those of the second line mean that only under a limit of
the address space."""


def check_address_space(purpose: Purpose, threads: int = 0) -> None:
    """Checks that the limits leave enough for the libraries that `purpose` needs.

    Args:
        threads: number of computing threads; 0: one per core.

    Raises:
        ResourceError: too little is left; it names the limit and the bytes needed.
    """
    for command, limit, used in _limits():
        needed = used + _bytes_still_needed(purpose, with_code=command == "ulimit -v")
        if purpose == "training":
            needed += THREAD_BYTES * max(0, (threads or _cores()) - 2)
        if needed > limit:
            raise ResourceError(
                f"This process may take {limit / 1e6:,.0f} MB of address space; its libraries and threads alone need "
                f"about {needed / 1e6:,.0f} MB.",
                where=f"{command} {limit // 1024}",
                fix=f"raise the limit ({command} unlimited); to limit memory itself, use a control group, such as "
                "systemd-run --user --scope -p MemoryMax=4G acorn ...",
            )


def address_space_left() -> int | None:
    """Bytes that the limits leave for the tensors of a training step; None: there is no limit."""
    return min((max(0, limit - used - STEP_BYTES) for _, limit, used in _limits()), default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. On a CPU, libraries have no exception type for that, so their messages are compared."""
    if isinstance(error, MemoryError):
        return True
    signs = OUT_OF_MEMORY_MESSAGES if _limits() else OUT_OF_MEMORY_MESSAGES[:4]
    return isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in signs)


def _limits() -> list[tuple[str, int, int]]:
    """For each limit that is set: the command that sets it, the limit and the bytes in use."""
    try:
        import resource

        entries = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if line.startswith("Vm"))
    except (ImportError, OSError):  # only Linux enforces these limits
        return []
    found = []
    for command, name, used in LIMITS:
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY:
            found.append((command, limit, int(entries[used].split()[0]) * 1024))
    return found


def _bytes_still_needed(purpose: Purpose, *, with_code: bool) -> int:
    """Bytes of the libraries that are not loaded yet."""
    if purpose == "numpy":
        return 0 if "numpy" in sys.modules else NUMPY_BYTES
    torch = 0 if "torch" in sys.modules else TORCH_BYTES + (_library_bytes() if with_code else 0)
    return torch + (TRAINING_BYTES if purpose == "training" else 0)


def _library_bytes() -> int:
    """The size of PyTorch's shared libraries, including those for GPUs."""
    folders: list[Path] = []
    for package, pattern in (("torch", "lib"), ("nvidia", "*/lib")):
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            folders += Path(place).glob(pattern)
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.so*"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
