"""Fixtures: a tiny run, and checkpoints of a tiny network."""

from __future__ import annotations

from quick_endings import quick_endings
from tiny_checkpoints import saved
from tiny_runs import run_tiny, text_file, tiny

__all__ = ["quick_endings", "run_tiny", "saved", "text_file", "tiny"]
