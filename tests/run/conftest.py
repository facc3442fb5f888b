"""Makes the fixtures for a tiny run available to the tests of this folder."""

from __future__ import annotations

from quick_endings import quick_endings
from tiny_runs import run_tiny, text_file, tiny

__all__ = ["quick_endings", "run_tiny", "text_file", "tiny"]
