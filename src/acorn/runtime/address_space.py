"""Limits on a process's address space (`ulimit -v`) and data (`ulimit -d`), checked before libraries run into them.

PyTorch, oneDNN, OpenBLAS and OpenMP reserve address space for code, threads and buffers. Where the system refuses it
they crash, abort or never return, at whichever of a hundred places it happens, and no program can catch that. So what
they need is compared with the limit while nothing is loaded yet. Without a limit nothing here does anything.
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
"""What sets a limit, its name, and the entry of /proc/self/status that counts against it."""

Purpose = Literal["numpy", "torch", "training"]

NUMPY, TORCH, TRAINING = 290 * 10**6, 250 * 10**6, 420 * 10**6
"""Bytes that are taken beside the shared libraries of PyTorch: with NumPy; with PyTorch; for threads, buffers and plots
of training on top of that. With a tenth less, commands on tiny models crashed (Linux, two cores, PyTorch 2.13)."""

STEPS = 160 * 10**6
"""Bytes of TRAINING that are not taken yet when a run's text is ready and its step is planned, tensors left out."""

THREAD = 16 * 2**20
"""Bytes for each thread above two: its stacks in OpenMP's pool and in the tokenizers'."""

SIGNS = (
    *("DefaultCPUAllocator: ", "can't allocate memory", "Cannot allocate memory", "out of memory"),
    *("could not create a primitive", "could not create a memory", "failed to map segment", "can't start new thread"),
)
"""What libraries say where memory is refused; those of the second line only where address space is limited."""


def check_address_space(purpose: Purpose, threads: int = 0) -> None:
    """Refuses to begin where a limit leaves too little for the libraries that `purpose` takes.

    Args:
        threads: that compute; 0: one a core.

    Raises:
        ResourceError: with the limit and what is needed.
    """
    for command, limit, used in _limits():
        needed = used + _yet_to_take(purpose, with_code=command == "ulimit -v")
        if purpose == "training":
            needed += THREAD * max(0, (threads or _cores()) - 2)
        if needed > limit:
            raise ResourceError(
                f"This process may take {limit / 1e6:,.0f} MB of address space; its libraries and threads alone need "
                f"about {needed / 1e6:,.0f} MB.",
                where=f"{command} {limit // 1024}",
                fix=f"raise the limit ({command} unlimited); to limit memory itself, use a control group, such as "
                "systemd-run --user --scope -p MemoryMax=4G acorn ...",
            )


def address_space_left() -> int | None:
    """Bytes that the limits leave for the tensors of a step that is about to be planned; None: there is no limit."""
    return min((max(0, limit - used - STEPS) for _, limit, used in _limits()), default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Libraries have no type of their own for that on a CPU, only what they say."""
    if isinstance(error, MemoryError):
        return True
    signs = SIGNS if _limits() else SIGNS[:4]
    return isinstance(error, RuntimeError | ImportError) and any(sign in str(error) for sign in signs)


def _limits() -> list[tuple[str, int, int]]:
    """The command that sets it, the limit and what is used of it, in bytes, for each limit that is set."""
    try:
        import resource

        entries = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if line.startswith("Vm"))
    except (ImportError, OSError):  # elsewhere than on Linux no such limit holds
        return []
    found = []
    for command, name, used in LIMITS:
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY:
            found.append((command, limit, int(entries[used].split()[0]) * 1024))
    return found


def _yet_to_take(purpose: Purpose, *, with_code: bool) -> int:
    """Bytes of what is not loaded yet."""
    if purpose == "numpy":
        return 0 if "numpy" in sys.modules else NUMPY
    torch = 0 if "torch" in sys.modules else TORCH + (_library_bytes() if with_code else 0)
    return torch + (TRAINING if purpose == "training" else 0)


def _library_bytes() -> int:
    """The size of PyTorch's shared libraries, and of those for GPUs that it loads with them."""
    folders: list[Path] = []
    for package, pattern in (("torch", "lib"), ("nvidia", "*/lib")):
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            folders += Path(place).glob(pattern)
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.so*"))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
