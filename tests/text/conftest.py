"""A recording listener, and text files in the folder of a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


class Listener:
    """A `Progress` that records its calls."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, float, float]] = []
        self.ended: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        self.steps.append((task, done, total))

    def end(self, task: str) -> None:
        self.ended.append(task)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    """Writes a file below the test's folder."""

    def write_file(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write_file
