"""What only some CPUs can do, for every folder of tests."""

from __future__ import annotations

import pytest

from acorn.runtime.fp16_product import fp16_product_library

needs_fp16 = pytest.mark.skipif(isinstance(fp16_product_library(), str), reason="needs a CPU that multiplies fp16")
