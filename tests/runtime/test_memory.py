"""Freed memory stays with the process inside the block, and goes back to the system after it."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from acorn.runtime.memory import kept_for_reuse

HAS_GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

# In a process of its own: in one that has run for a while, other tests' memory comes and goes.
SCRIPT = """
import torch
from acorn.runtime.memory import kept_for_reuse, resident_memory

def grown():
    torch.ones(2**26)  # 256 MiB, freed at once
    return (resident_memory() - before) >> 20

torch.ones(2**20)
before = resident_memory()
first = grown()
with kept_for_reuse():
    inside = grown()
after = (resident_memory() - before) >> 20
print(first, inside, after)
"""


@pytest.mark.skipif(not HAS_GLIBC, reason="only glibc can be told to keep memory")
def test_freed_memory_is_kept_and_then_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    first, inside, after = map(int, done.stdout.split())
    assert first < 64
    assert inside > 192
    assert after < 64


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with kept_for_reuse():
        assert torch.ones(3).sum() == 3
