"""Freed memory stays with the process inside the block, and is returned to the system after it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from acorn.runtime import control_groups, memory
from acorn.runtime.memory import available_memory, freed_memory_reused

HAS_GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

# In a separate process, because memory of other tests would disturb the measurement.
SCRIPT = """
import torch
from acorn.runtime.memory import freed_memory_reused, resident_memory

def grown():
    torch.ones(2**26)  # 256 MiB, freed at once
    return (resident_memory() - before) >> 20

torch.ones(2**20)
before = resident_memory()
first = grown()
with freed_memory_reused():
    inside = grown()
after = (resident_memory() - before) >> 20
print(first, inside, after)
"""


@pytest.mark.skipif(not HAS_GLIBC, reason="only glibc can be told to keep memory")
def test_freed_memory_is_kept_and_then_returned() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    first, inside, after = map(int, done.stdout.split())
    assert first < 64
    assert inside > 192
    assert after < 64


def test_available_memory_is_the_minimum_of_kernel_groups_and_limits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fault 26."""
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1000 kB\n")
    left: dict[str, int | None] = {"groups": None, "limits": None}
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "memory_left", lambda: left["groups"])
    monkeypatch.setattr(memory, "address_space_left", lambda: left["limits"])
    assert available_memory("cpu") == 1_024_000
    left["groups"] = 500_000
    assert available_memory("cpu") == 500_000
    left["limits"] = 0
    assert available_memory("cpu") == 0
    assert available_memory("mps") is None
    left |= {"groups": None, "limits": None}
    (tmp_path / "meminfo").unlink()
    assert available_memory("cpu") is None


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_reused():
        assert torch.ones(3).sum() == 3
