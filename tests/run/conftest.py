"""A tiny run, for the tests here and of what stands around it."""

from __future__ import annotations

from tiny_runs import run_tiny, text_file, tiny

__all__ = ["run_tiny", "text_file", "tiny"]
