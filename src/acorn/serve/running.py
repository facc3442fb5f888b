"""Runs the jobs of a request while its client stays, and cancels them as soon as it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.types import Receive

from acorn.generate.job import Job
from acorn.serve.context import Context
from acorn.serve.mailbox import Mailbox


@contextlib.asynccontextmanager
async def running(context: Context, jobs: Sequence[Job], receive: Receive) -> AsyncIterator[Mailbox]:
    """Hands the jobs to the engine; their updates arrive in the mailbox. Whatever still runs at the end is cancelled.

    Args:
        receive: of the request, whose body was read.

    Raises:
        QueueFullError, NotReadyError
    """
    mailbox = Mailbox(len(jobs), context.metrics)
    tickets = context.scheduler.submit(jobs, mailbox.receivers())

    def cancel() -> None:
        for ticket in tickets:
            ticket.cancel()

    def gone() -> None:
        cancel()
        mailbox.client_gone()

    try:
        with context.answering():
            async with watched(receive, gone):
                yield mailbox
    finally:
        cancel()


@contextlib.asynccontextmanager
async def watched(receive: Receive, gone: Callable[[], object]) -> AsyncIterator[None]:
    """Inside the block, `gone` is called as soon as the client closes the connection."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
