"""Runs tasks of the engine thread without a thread."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")


def finished(task: Generator[None, None, Result]) -> Result:
    """The result of a task that is run to its end."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            return end.value
