"""Freed memory stays with the process inside the block, and goes back to the system after it."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from acorn.runtime.memory import kept_for_reuse

MEGABYTES = 256
HAS_GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def resident() -> float:
    """Megabytes of this process in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20


@pytest.mark.skipif(not HAS_GLIBC, reason="only glibc can be told to keep memory")
def test_freed_memory_is_kept_and_then_given_back() -> None:
    before = resident()
    torch.ones(MEGABYTES * 2**18)  # fp32; freed at once
    assert resident() - before < MEGABYTES / 4
    with kept_for_reuse():
        torch.ones(MEGABYTES * 2**18)
        assert resident() - before > MEGABYTES * 3 / 4
    assert resident() - before < MEGABYTES / 4
    torch.ones(MEGABYTES * 2**18)
    assert resident() - before < MEGABYTES / 4


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with kept_for_reuse():
        assert torch.ones(3).sum() == 3
