"""One family of errors. Each says what happened, where, and how to fix it, and carries its exit code.

The command line prints `str(error)` and exits with `error.exit_code`; a Python caller can catch
`AcornError` or one of its kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LONGEST_SHOWN = 200
"""Longest part of a wrong value that a message repeats, in characters."""


def install_command(extra: str) -> str:
    """The command that installs an extra of acorn in its checkout, as the documentation gives it."""
    return f"pip install -c constraints.txt '.[{extra}]'"


class AcornError(Exception):
    """Base of every error that acorn raises on purpose.

    Args:
        what: what happened, one sentence.
        where: the file, line, offset, step or config key it happened at.
        fix: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __reduce__(self) -> tuple[Any, ...]:
        # Kinds differ in what they are made from; a copy needs only what the base holds.
        return _rebuilt, (type(self), self.__dict__)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class UsageError(AcornError):
    """Wrong use or wrong config. Nothing was touched."""

    exit_code = 2


class InputError(AcornError):
    """Text, a tokenizer or token shards that cannot be used as they are."""

    exit_code = 3


class DamageError(AcornError):
    """A checkpoint, shard or model that fails its check. What is still good is named in `fix`."""

    exit_code = 4


class DivergedError(AcornError):
    """Training left the range of finite numbers and the guards could not bring it back."""

    exit_code = 5


class ResourceError(AcornError):
    """Disk or memory ran out, or would. The last checkpoint stands."""

    exit_code = 6


class MissingPackageError(AcornError):
    """An optional package is not installed."""

    exit_code = 7

    def __init__(self, package: str, extra: str, *, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            fix=f"in the checkout of acorn: {install_command(extra)}",
        )


class StoppedError(AcornError):
    """Stopped by a signal, after the state was saved. `exit_code` is 128 + the signal's number."""

    def __init__(self, signal_number: int, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.exit_code = 128 + signal_number

    def __str__(self) -> str:
        """As a notice, for nothing went wrong."""
        lines = [self.what]
        if self.where:
            lines.append(f"  in:   {self.where}")
        if self.fix:
            lines.append(f"  next: {self.fix}")
        return "\n".join(lines)


def shown(value: object, form: Callable[[object], str] = repr) -> str:
    """A wrong value, shortened for a message."""
    try:
        text = form(value)
    except (ValueError, RecursionError):  # more digits than Python prints, or endless nesting
        return f"<{type(value).__name__} too long to show>"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _rebuilt(kind: type[AcornError], attributes: dict[str, Any]) -> AcornError:
    """An error as it was in another process."""
    error = kind.__new__(kind)
    Exception.__init__(error, attributes["what"])
    error.__dict__.update(attributes)
    return error
