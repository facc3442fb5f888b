"""The engine thread: owns the model and its cache, and continues the texts of all requests together. Knows no HTTP."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, Literal, TypeVar

import torch

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_chat import chat_format
from acorn.errors import AcornError, shown
from acorn.generate.decoding import DecodingLoop, Text
from acorn.generate.engine import banned_ids
from acorn.generate.job import Job, Update
from acorn.generate.prefix_cache import PrefixCache
from acorn.generate.settings import SamplingSettings
from acorn.generate.stepper import Stepper
from acorn.runtime.device import Runtime

Result = TypeVar("Result")
State = Literal["loading", "ready", "draining", "stopped"]
Deliver = Callable[[Sequence[tuple[Any, Update]]], None]
Task = tuple[Generator[None, None, Any], Future[Any]]


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
        """Ends the text before the next turn; nothing more is delivered of it.

        May be called from any thread, and more than once.
        """
        self.is_cancelled = True


class _TakenText(Text):
    """The text of a ticket."""

    def __init__(self, ticket: Ticket, loaded: LoadedModel) -> None:
        super().__init__(ticket.job, loaded.tokenizer, lambda: ticket.is_cancelled)
        self.ticket = ticket


class Scheduler:
    """Runs jobs and tasks in a thread of its own. All methods may be called from any thread.

    Args:
        load: loads the model, in the engine thread.
        slots: largest number of texts that are continued together.
        queue: largest number of jobs and tasks that wait.
        deliver: called in the engine thread, once a turn, with the updates of that turn: (receiver, update).
        failed: called in the engine thread when loading or the thread itself fails; the state is then `stopped`.
        int8: the weights were rounded to int8.

    Attributes:
        state: `loading`, `ready`, `draining` or `stopped`.
        loaded: the model, once the state is `ready`.
        ends: ids that end a text, once the state is `ready`.
    """

    def __init__(
        self,
        load: Callable[[], LoadedModel],
        runtime: Runtime,
        *,
        slots: int,
        queue: int,
        deliver: Deliver,
        failed: Callable[[BaseException], None],
        int8: bool = False,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._load, self._runtime, self._slots, self._queue = load, runtime, slots, queue
        self._deliver, self._failed, self._int8, self._note = deliver, failed, int8, note
        self.state: State = "loading"
        self.loaded: LoadedModel
        self.ends: frozenset[int] = frozenset()
        self._inbox: deque[Ticket] = deque()
        self._tasks: deque[Task] = deque()
        self._wakes = threading.Condition()  # guards the state, the inbox and the tasks
        self._deadline: float | None = None  # of the rest, while the server stops
        self._loop: DecodingLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def waiting(self) -> int:
        """Jobs and tasks that wait."""
        return len(self._inbox) + len(self._tasks)

    @property
    def active(self) -> int:
        """Texts that are being read or continued."""
        return self._loop.n_texts if self._loop else 0

    def start(self) -> None:
        """Starts the thread, which loads the model."""
        self._thread.start()

    def submit(self, jobs: Sequence[Job], receivers: Sequence[Any]) -> list[Ticket]:
        """Takes all of the jobs of a request, or none.

        Raises:
            QueueFullError, NotReadyError
        """
        tickets = [Ticket(job, receiver) for job, receiver in zip(jobs, receivers, strict=True)]
        with self._wakes:
            self.check_room(len(tickets))
            self._inbox.extend(tickets)
            self._wakes.notify()
        return tickets

    def run(self, task: Generator[None, None, Result]) -> Future[Result]:
        """Runs a task in the engine thread, one part after each turn: from one `yield` to the next.

        Its `return` value is the result. Cancelling the future ends it at the next `yield`. Parts should take at most
        40 ms, because everybody waits for them.

        Raises:
            QueueFullError, NotReadyError
        """
        future: Future[Result] = Future()
        with self._wakes:
            self.check_room(1)
            self._tasks.append((task, future))
            self._wakes.notify()
        return future

    def stop(self, seconds: float) -> None:
        """Takes nothing new, finishes what was taken for at most `seconds`, and ends the thread. Does not wait."""
        with self._wakes:
            if self.state != "stopped":
                self.state = "draining"
                self._deadline = time.monotonic() + seconds
            self._wakes.notify()

    def join(self, timeout: float | None = None) -> None:
        """Waits until the thread has ended."""
        self._thread.join(timeout)

    def check_room(self, wanted: int = 1) -> None:
        """Whether as many jobs would be taken now.

        Raises:
            QueueFullError, NotReadyError
        """
        if self.state != "ready":
            raise NotReadyError
        if self.waiting + wanted > self._queue:
            raise QueueFullError

    def _run(self) -> None:
        try:
            with self._runtime.start(), self._runtime.autocast(), torch.inference_mode():
                self._prepare()
                while self._wait():
                    self._turn()
        except BaseException as error:
            self._end(error)
            self._failed(error)
        else:
            self._end(AcornError("The server is stopping.", where="the server", fix="send the request again later"))

    def _prepare(self) -> None:
        """Loads the model and compiles what it needs, before anybody waits for a text."""
        self.loaded = self._load()
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        if model.head is not None:
            format = chat_format(self.loaded)
            self.ends = frozenset({tokenizer.separator_id, *self.loaded.end_ids, *(format.end_ids if format else ())})
            stepper = Stepper(model, self._slots, int8=self._int8, note=self._note)
            banned = banned_ids(tokenizer, model, {*self.ends, *self.loaded.trained_ids})
            prefixes = PrefixCache(stepper.chunk)
            self._loop = DecodingLoop(stepper, self.ends, banned, prefixes=prefixes, interleaved=True)
            first = Job((tokenizer.separator_id,), SamplingSettings(max_new_tokens=2, greedy=True))
            self._loop.add(Text(first, tokenizer))
            while self._loop.n_texts:
                self._loop.turn()
        with self._wakes:
            if self.state == "loading":
                self.state = "ready"

    def _wait(self) -> bool:
        """Waits for something to do; false once the thread must end."""
        with self._wakes:
            while True:
                is_busy = bool(self._inbox or self._tasks or self.active)
                if self.state == "draining" and (not is_busy or time.monotonic() >= (self._deadline or 0)):
                    return False
                if is_busy:
                    return True
                self._wakes.wait()

    def _turn(self) -> None:
        """Lets waiting jobs join, gives each text its next token, reads a chunk, and runs a part of a task."""
        loop = self._loop
        if loop is not None:
            with self._wakes:
                # Whoever is gone leaves the queue at once, so that nobody is refused because of them.
                self._inbox = deque(ticket for ticket in self._inbox if not ticket.is_cancelled)
                joining = [self._inbox.popleft() for _ in range(min(len(self._inbox), self._slots - loop.n_texts))]
            for ticket in joining:
                loop.add(_TakenText(ticket, self.loaded))
            updates = [
                (text.ticket.receiver, update)
                for text, update in loop.turn()
                if isinstance(text, _TakenText) and not text.ticket.is_cancelled
            ]
            if updates:
                self._deliver(updates)
        if self._tasks:
            self._run_part()

    def _run_part(self) -> None:
        with self._wakes:
            task, future = self._tasks.popleft()
        if future.cancelled():
            task.close()
            return
        try:
            next(task)
        except StopIteration as end:
            _settle(future, end.value)
        except Exception as error:
            _settle(future, error)
        else:
            with self._wakes:
                self._tasks.append((task, future))

    def _end(self, error: BaseException) -> None:
        """Ends what is left with an error."""
        reason = error if isinstance(error, AcornError) else _failure(error)
        with self._wakes:
            self.state = "stopped"
            left = [ticket for ticket in self._inbox if not ticket.is_cancelled]
            tasks = list(self._tasks)
            self._inbox.clear()
            self._tasks.clear()
        growing = self._loop.texts if self._loop else []
        left += [text.ticket for text in growing if isinstance(text, _TakenText) and not text.ticket.is_cancelled]
        if left:
            self._deliver([(ticket.receiver, Update(error=reason)) for ticket in left])
        for _, future in tasks:
            _settle(future, reason)


def _failure(error: BaseException) -> AcornError:
    return AcornError(f"The engine failed: {shown(error)}.", where="the server", fix="start the server again")


def _settle(future: Future[Any], result: Any) -> None:
    """Gives a future its result or error, unless it was cancelled in the meantime."""
    if future.set_running_or_notify_cancel():
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
