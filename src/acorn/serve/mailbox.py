"""Brings what the engine thread reports to the requests that wait for it in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from acorn.generate.job import Update
from acorn.serve.metrics import Metrics


class ClientGoneError(Exception):
    """The client closed the connection before its answer was complete."""


@dataclass(frozen=True)
class Receiver:
    """Where the updates of one text of a request go."""

    mailbox: Mailbox
    index: int


class Mailbox:
    """The updates of a request's texts, in the order of their arrival. Lives in the event loop.

    It has no limit of its own: it holds at most what the request's tokens need, so that the engine never waits for a
    client that reads slowly.
    """

    def __init__(self, texts: int, metrics: Metrics) -> None:
        self._queue: asyncio.Queue[tuple[int, Update] | None] = asyncio.Queue()
        self._metrics = metrics
        self._began = time.monotonic()
        self._last: dict[int, float] = {}
        self._open = set(range(texts))

    def receivers(self) -> list[Receiver]:
        return [Receiver(self, index) for index in sorted(self._open)]

    def put(self, index: int, update: Update) -> None:
        if update.token is not None:
            now = time.monotonic()
            if index in self._last:
                self._metrics.gap.observe(now - self._last[index])
            else:
                self._metrics.first_token.observe(now - self._began)
            self._last[index] = now
        self._queue.put_nowait((index, update))

    def client_gone(self) -> None:
        """Ends the iteration with `ClientGoneError`."""
        self._queue.put_nowait(None)

    async def updates(self) -> AsyncIterator[tuple[int, Update]]:
        """(index of the text, update), until the last text is complete.

        Raises:
            ClientGoneError
        """
        while self._open:
            item = await self._queue.get()
            if item is None:
                raise ClientGoneError
            index, update = item
            if update.is_last:
                self._open.discard(index)
            yield index, update


def delivery(loop: asyncio.AbstractEventLoop) -> Callable[[Sequence[tuple[Any, Update]]], None]:
    """What the engine thread calls with the updates of a turn. It wakes the event loop once a turn."""

    def hand_out(updates: Sequence[tuple[Receiver, Update]]) -> None:
        for receiver, update in updates:
            receiver.mailbox.put(receiver.index, update)

    def deliver(updates: Sequence[tuple[Any, Update]]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
            loop.call_soon_threadsafe(hand_out, tuple(updates))

    return deliver
