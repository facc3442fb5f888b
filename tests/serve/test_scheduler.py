"""The engine thread: what it takes, in which order, and how it ends. Texts themselves: test_decoding."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_models import LINES, random_model_of

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError, DamageError
from acorn.generate.engine import generate
from acorn.generate.job import Job, Update
from acorn.generate.settings import SamplingSettings
from acorn.runtime.choose import runtime_for_inference
from acorn.serve.scheduler import NotReadyError, QueueFullError, Scheduler
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

WAIT = 60.0
"""Seconds after which a test gives up; nothing waits that long."""


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture(scope="module")
def loaded(bpe: Tokenizer) -> LoadedModel:
    model = random_model_of("modern", bpe.vocab_size, block_size=64).eval()
    return LoadedModel(model, bpe, model.config, Path("model"), None)


class Listener:
    """Receives what the engine delivers."""

    def __init__(self) -> None:
        self.updates: queue.Queue[tuple[Any, Update]] = queue.Queue()
        self.failure: queue.Queue[BaseException] = queue.Queue()

    def deliver(self, updates: Any) -> None:
        for one in updates:
            self.updates.put(one)

    def rest(self, receivers: list[Any]) -> dict[Any, list[Update]]:
        """All updates until each of the receivers has its last one."""
        seen: dict[Any, list[Update]] = {receiver: [] for receiver in receivers}
        while not all(updates and updates[-1].is_last for updates in seen.values()):
            receiver, update = self.updates.get(timeout=WAIT)
            seen[receiver].append(update)
        return seen


@pytest.fixture
def start(loaded: LoadedModel) -> Iterator[Callable[..., tuple[Scheduler, Listener]]]:
    started: list[Scheduler] = []

    def start(load: Callable[[], LoadedModel] = lambda: loaded, **sizes: int) -> tuple[Scheduler, Listener]:
        listener = Listener()
        scheduler = Scheduler(
            load,
            runtime_for_inference("cpu", "fp32"),
            **{"slots": 2, "queue": 8, **sizes},
            deliver=listener.deliver,
            failed=listener.failure.put,
        )
        scheduler.start()
        started.append(scheduler)
        return scheduler, listener

    yield start
    for scheduler in started:
        scheduler.stop(0)
        scheduler.join(WAIT)


def ready(scheduler: Scheduler) -> Scheduler:
    """Waits until tasks are taken."""
    while scheduler.state == "loading":
        threading.Event().wait(0.001)
    return scheduler


def job(tokens: int = 8, seed: int = 0, index: int = 0) -> Job:
    settings = SamplingSettings(max_new_tokens=tokens, seed=seed, ignore_eos=True)
    return Job((5, 6, 7), settings, index)


def endless() -> Generator[None, None, None]:
    while True:
        yield


def test_texts_are_those_of_generate(start, loaded: LoadedModel, bpe: Tokenizer) -> None:
    scheduler, listener = start()
    ready(scheduler).submit([job(index=number) for number in range(5)], list("abcde"))
    seen = listener.rest(list("abcde"))
    expected = generate(loaded.model, bpe, [[5, 6, 7]] * 5, job().settings)
    assert ["".join(update.text for update in seen[name]) for name in "abcde"] == [one.completion for one in expected]
    assert [[update.token for update in seen[name]] for name in "abcde"] == [one.new_ids for one in expected]
    assert (scheduler.active, scheduler.waiting) == (0, 0)


def test_a_request_is_taken_whole_or_not_at_all(start) -> None:
    scheduler, listener = start(slots=1, queue=3)
    gate = threading.Event()

    def block() -> Generator[None, None, None]:
        gate.wait(WAIT)
        yield

    first = ready(scheduler).run(block())
    while scheduler.waiting:
        threading.Event().wait(0.001)  # until the engine thread has begun with it
    scheduler.submit([job()] * 2, ["a", "b"])
    with pytest.raises(QueueFullError):
        scheduler.submit([job()] * 2, ["c", "d"])
    scheduler.check_room()
    scheduler.submit([job()], ["c"])
    with pytest.raises(QueueFullError):
        scheduler.check_room()
    with pytest.raises(QueueFullError):
        scheduler.run(endless())
    assert scheduler.waiting == 3
    gate.set()
    first.result(WAIT)
    assert set(listener.rest(["a", "b", "c"])) == {"a", "b", "c"}


def test_nothing_is_delivered_after_cancelling(start) -> None:
    scheduler, listener = start(slots=1)
    (long,) = ready(scheduler).submit([job(tokens=60)], ["long"])
    listener.updates.get(timeout=WAIT)
    (waiting,) = scheduler.submit([job(tokens=60)], ["waiting"])
    waiting.cancel()
    long.cancel()
    long.cancel()
    scheduler.submit([job()], ["next"])
    receivers = []
    while not receivers or receivers[-1][0] != "next":
        receivers.append(listener.updates.get(timeout=WAIT))
    assert "waiting" not in [receiver for receiver, _ in receivers]
    assert not any(update.is_last for receiver, update in receivers if receiver == "long")


def test_cancelled_jobs_do_not_fill_the_queue(start) -> None:
    scheduler, listener = start(slots=1, queue=2)
    ready(scheduler).submit([job(tokens=10_000_000)], ["long"])
    listener.updates.get(timeout=WAIT)
    for ticket in scheduler.submit([job(), job()], ["a", "b"]):
        ticket.cancel()
    while scheduler.waiting:
        listener.updates.get(timeout=WAIT)  # the long one still has the only slot
    scheduler.submit([job(), job()], ["c", "d"])


def test_tasks_run_between_turns_and_give_results(start) -> None:
    scheduler, listener = start()
    parts: list[int] = []

    def task() -> Generator[None, None, int]:
        for part in range(4):
            parts.append(part)
            yield
        return 42

    def wrong() -> Generator[None, None, int]:
        yield
        raise DamageError("Broken.")

    ready(scheduler).submit([job()], ["text"])
    done, failed = scheduler.run(task()), scheduler.run(wrong())
    assert done.result(WAIT) == 42
    assert parts == [0, 1, 2, 3]
    with pytest.raises(DamageError, match="Broken"):
        failed.result(WAIT)
    assert len(listener.rest(["text"])["text"]) == 8
    forever = scheduler.run(endless())
    assert forever.cancel()
    assert scheduler.run(task()).result(WAIT) == 42
    while scheduler.waiting:
        threading.Event().wait(0.001)


@pytest.mark.parametrize("grace", [WAIT, 0.0])
def test_stopping_finishes_what_was_taken_for_some_time(start, grace: float) -> None:
    scheduler, listener = start(slots=1)
    ready(scheduler).submit([job(tokens=50), job(tokens=50)], ["a", "b"])
    scheduler.stop(grace)
    with pytest.raises(NotReadyError):
        scheduler.submit([job()], ["c"])
    with pytest.raises(NotReadyError):
        scheduler.run(endless())
    scheduler.join(WAIT)
    assert scheduler.state == "stopped"
    seen = listener.rest(["a", "b"])
    errors = [seen[name][-1].error for name in "ab"]
    assert (errors == [None, None]) if grace else all(isinstance(error, AcornError) for error in errors)


def test_while_the_model_is_loaded_nothing_is_taken(start, loaded: LoadedModel) -> None:
    gate = threading.Event()
    scheduler, listener = start(lambda: (gate.wait(WAIT), loaded)[1])
    assert scheduler.state == "loading"
    with pytest.raises(NotReadyError):
        scheduler.submit([job()], ["a"])
    gate.set()
    ready(scheduler).submit([job()], ["a"])
    listener.rest(["a"])


def test_a_model_that_cannot_be_loaded_is_reported(start) -> None:
    def load() -> LoadedModel:
        raise DamageError("The checkpoint is damaged.")

    scheduler, listener = start(load)
    assert isinstance(listener.failure.get(timeout=WAIT), DamageError)
    assert scheduler.state == "stopped"


@pytest.mark.parametrize("part", ["stepper.Stepper.feed", "decoding.next_token"])
def test_if_the_engine_fails_everybody_is_told(start, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Those that wait, whose prompts are read, and whose texts grow."""
    scheduler, listener = start(slots=2)
    ready(scheduler)
    begins, fails = threading.Event(), threading.Event()

    def endless_wait(*arguments: object) -> None:
        begins.set()
        fails.wait(WAIT)
        raise RuntimeError("no memory")

    monkeypatch.setattr(f"acorn.generate.{part}", endless_wait)
    scheduler.submit([job()], ["a"])
    assert begins.wait(WAIT)
    scheduler.submit([job(), job()], ["b", "c"])
    fails.set()
    for updates in listener.rest(["a", "b", "c"]).values():
        assert "no memory" in str(updates[-1].error)
    assert "no memory" in str(listener.failure.get(timeout=WAIT))
    assert scheduler.state == "stopped"
