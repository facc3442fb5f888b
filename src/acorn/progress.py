"""How long-running work reports its progress without knowing who listens.

Only the command line prints. Everything else takes a `Progress` and calls it: the command line passes one that draws a
bar, a user of the library gets a silent one.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener for long work."""

    def note(self, text: str) -> None:
        """Reports one line that a person should read, such as a warning or a fact about the input."""

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        """Reports that `task` has finished `done` of `total` (0: unknown) units. Called often."""

    def end(self, task: str) -> None:
        """Reports that `task` is complete."""


class Quiet:
    """A `Progress` that says nothing."""

    def note(self, text: str) -> None:
        pass

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None:
        pass

    def end(self, task: str) -> None:
        pass


QUIET: Progress = Quiet()
