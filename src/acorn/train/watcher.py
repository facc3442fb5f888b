"""The interface through which a run shows its progress, such as in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Watcher(Protocol):
    """Is told of every step, validation, sample and note of a run."""

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None: ...

    def valid(self, record: Mapping[str, Any]) -> None: ...

    def sample(self, step: int, prompt: str, text: str) -> None: ...

    def note(self, text: str) -> None: ...


class Unwatched:
    """A `Watcher` that shows nothing."""

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        pass

    def valid(self, record: Mapping[str, Any]) -> None:
        pass

    def sample(self, step: int, prompt: str, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass
