"""The engine thread: owns the model and its cache, and continues the texts of all requests together. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError
from acorn.generate.job import Job, Update
from acorn.runtime.device import Runtime

Result = TypeVar("Result")
State = str
"""`loading`, `ready`, `draining` or `stopped`."""


class QueueFullError(Exception):
    """As many requests wait as the limits allow."""


class NotReadyError(Exception):
    """The model is being loaded, or the server stops."""


class Ticket:
    """A job that was taken.

    Attributes:
        receiver: what its updates are delivered with.
    """

    def __init__(self, job: Job, receiver: Any) -> None:
        self.job, self.receiver = job, receiver
        self.is_cancelled = False

    def cancel(self) -> None:
        """Ends the text before the next step or chunk; nothing more is delivered of it. May be called from any thread,
        and more than once."""
        self.is_cancelled = True


class Scheduler:
    """Runs jobs and tasks in a thread of its own. All methods may be called from any thread.

    Args:
        load: loads the model, in the engine thread.
        slots: largest number of texts that are continued together.
        queue: largest number of jobs and tasks that wait.
        deliver: called in the engine thread, once a turn, with the updates of that turn: (receiver, update).
        failed: called in the engine thread when loading or the thread itself fails.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        runtime: Runtime,
        *,
        slots: int,
        queue: int,
        deliver: Callable[[Sequence[tuple[Any, Update]]], None],
        failed: Callable[[BaseException], None],
        int8: bool = False,
    ) -> None:
        raise NotImplementedError

    state: State
    loaded: LoadedModel
    """Once the state is `ready`."""

    @property
    def waiting(self) -> int:
        """Jobs and tasks that wait for a slot."""
        raise NotImplementedError

    @property
    def active(self) -> int:
        """Texts that are being read or continued."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the thread, which loads the model."""

    def submit(self, jobs: Sequence[Job], receivers: Sequence[Any]) -> list[Ticket]:
        """Takes all of the jobs of a request, or none.

        Raises:
            QueueFullError, NotReadyError
        """
        raise NotImplementedError

    def run(self, task: Generator[None, None, Result]) -> Future[Result]:
        """Runs a task in the engine thread, one part between two turns: from one `yield` to the next. Its `return`
        value is the result. Cancelling the future ends it at the next `yield`. Parts should take at most 40 ms.

        Raises:
            QueueFullError, NotReadyError
        """
        raise NotImplementedError

    def stop(self, seconds: float) -> None:
        """Takes nothing new, finishes what runs for at most `seconds`, and ends the thread. Does not wait for it."""

    def join(self, timeout: float | None = None) -> None:
        """Waits until the thread has ended."""


__all__ = ["AcornError", "NotReadyError", "QueueFullError", "Scheduler", "Ticket"]
