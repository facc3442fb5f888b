"""How long work tells about itself without knowing who listens.

Lower floors never print. They take a `Progress` and call it; the command line hands in one that draws
a bar, a library user gets silence.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener for long work."""

    def note(self, text: str) -> None:
        """One line a person should read, such as a warning or a fact about the input."""

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        """`task` has done `done` of `total` (0: not known) units. Called often; cheap to ignore."""

    def end(self, task: str) -> None:
        """`task` is complete."""


class Quiet:
    """A `Progress` that says nothing."""

    def note(self, text: str) -> None:
        pass

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        pass

    def end(self, task: str) -> None:
        pass


QUIET: Progress = Quiet()
