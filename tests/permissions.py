"""Lets tests that run as root meet files that may not be read."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_VERSION_3 = 0x20080522
_OVERRIDES = (1 << 1) | (1 << 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which Linux lets root read every file (capabilities(7))."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def denied(path: Path) -> Iterator[None]:
    """Within the block, `path` may not be read, not even by root."""
    if os.name == "nt":
        pytest.skip("Windows has other permissions")
    before = path.stat().st_mode
    path.chmod(0)
    try:
        with _like_any_user():
            if os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                pytest.skip("this user may read every file")
            yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def _like_any_user() -> Iterator[None]:
    """Within the block, root on Linux has no more rights to files than their modes give."""
    if os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    library = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    library.capget(ctypes.byref(header), ctypes.byref(sets))
    own = sets[0].effective
    sets[0].effective = own & ~_OVERRIDES
    library.capset(ctypes.byref(header), ctypes.byref(sets))
    try:
        yield
    finally:
        sets[0].effective = own
        library.capset(ctypes.byref(header), ctypes.byref(sets))
