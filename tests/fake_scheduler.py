"""A stand-in for the engine thread: it draws tokens without a model, one for each text a turn, when tests let it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from acorn.checkpoint.load import LoadedModel
from acorn.generate.job import Job, TokenScore, Update
from acorn.generate.streaming import TextStream
from acorn.runtime.device import Runtime
from acorn.serve.scheduler import NotReadyError, QueueFullError, Ticket


@dataclass
class _Text:
    ticket: Ticket
    draw: random.Random
    stream: TextStream
    ids: list[int] = field(default_factory=list)


class FakeScheduler:
    """The interface of `Scheduler`.

    Attributes:
        gate: while it is cleared, no token is made.
        cancelled: texts that ended because they were cancelled.
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
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._load, self._slots, self._queue, self._deliver, self._failed = load, slots, queue, deliver, failed
        self.runtime = runtime
        self.state = "loading"
        self.gate = threading.Event()
        self.gate.set()
        self.cancelled = 0
        self._lock = threading.Condition()
        self._texts: list[_Text] = []
        self._waiting: list[_Text] = []
        self._tasks: list[tuple[Generator[None, None, Any], Future[Any]]] = []
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._tasks)

    @property
    def active(self) -> int:
        return len(self._texts)

    def start(self) -> None:
        self._thread.start()

    def check_room(self, wanted: int = 1) -> None:
        if self.state != "ready":
            raise NotReadyError
        if self.waiting + wanted > self._queue:
            raise QueueFullError

    def submit(self, jobs: Sequence[Job], receivers: Sequence[Any]) -> list[Ticket]:
        with self._lock:
            self.check_room(len(jobs))
            tickets = [Ticket(job, receiver) for job, receiver in zip(jobs, receivers, strict=True)]
            for ticket in tickets:
                job = ticket.job
                draw = random.Random(repr((job.settings.seed, job.index, job.prompt_ids)))
                stream = TextStream(self.loaded.tokenizer, job.prompt_ids, job.settings.stop)
                self._waiting.append(_Text(ticket, draw, stream))
            self._lock.notify()
            return tickets

    def run(self, task: Generator[None, None, Any]) -> Future[Any]:
        with self._lock:
            if self.state != "ready":
                raise NotReadyError
            future: Future[Any] = Future()
            self._tasks.append((task, future))
            self._lock.notify()
            return future

    def stop(self, seconds: float) -> None:
        with self._lock:
            self.state = "draining"
            self._stop_at = time.monotonic() + seconds
            self._lock.notify()

    def join(self, timeout: float | None = None) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _main(self) -> None:
        try:
            self.loaded = self._load()
        except BaseException as error:
            self._failed(error)
            return
        with self._lock:
            if self.state == "loading":
                self.state = "ready"
        while True:
            with self._lock:
                while not (self._texts or self._waiting or self._tasks or self._stop_at is not None):
                    self._lock.wait()
                is_idle = not (self._texts or self._waiting or self._tasks)
                if self._stop_at is not None and (is_idle or time.monotonic() > self._stop_at):
                    self.state = "stopped"
                    return
                while self._waiting and len(self._texts) < self._slots:
                    self._texts.append(self._waiting.pop(0))
                tasks, self._tasks = self._tasks, []
            for task, future in tasks:
                self._finish(task, future)
            self._turn()

    def _finish(self, task: Generator[None, None, Any], future: Future[Any]) -> None:
        while not future.cancelled():
            try:
                next(task)
            except StopIteration as end:
                future.set_result(end.value)
                return
            except Exception as error:
                future.set_exception(error)
                return

    def _turn(self) -> None:
        for text in [*self._texts, *self._waiting]:
            if text.ticket.is_cancelled:
                self.cancelled += 1
                (self._texts if text in self._texts else self._waiting).remove(text)
        if not self.gate.wait(0.002):
            return
        updates = []
        for text in list(self._texts):
            update = self._step(text)
            updates.append((text.ticket.receiver, update))
            if update.is_last:
                self._texts.remove(text)
        if updates:
            self._deliver(updates)

    def _step(self, text: _Text) -> Update:
        job = text.ticket.job
        first: dict[str, Any] = {}
        if not text.ids:
            first["cached_tokens"] = len(job.prompt_ids) // 2
            if job.score_prompt:
                first["prompt_scores"] = tuple(self.score(token, job.alternatives or 0) for token in job.prompt_ids[1:])
        if job.prompt_only:
            return Update(finish_reason="length", **first)
        vocabulary = range(17, self.loaded.tokenizer.vocab_size)  # no control tokens
        token = max(job.logit_bias, key=job.logit_bias.get) if job.logit_bias else text.draw.choice(vocabulary)
        text.ids.append(token)
        piece = text.stream.add(token)
        reason = None
        if token == self.loaded.tokenizer.separator_id and not job.settings.ignore_eos:
            reason = "eos"
        elif text.stream.stopped:
            reason = "stop"
        elif len(text.ids) == job.settings.max_new_tokens:
            reason = "length"
        if reason is not None:
            piece += text.stream.finish()
        score = None if job.alternatives is None else self.score(token, job.alternatives)
        return Update(token, piece, score, finish_reason=reason, **first)

    def score(self, token: int, alternatives: int) -> TokenScore:
        """Made up, the same for the same token."""
        top = tuple((one, -0.5 - number) for number, one in enumerate(range(100, 100 + alternatives)))
        return TokenScore(token, -token / 100, top)
