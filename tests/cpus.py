"""Marks for tests that need features of some CPUs."""

from __future__ import annotations

import pytest

from acorn.kernels.build import Unavailable
from acorn.kernels.matmul import fp16_library

needs_fp16 = pytest.mark.skipif(isinstance(fp16_library(), Unavailable), reason="needs a CPU with fp16 instructions")
