"""Runs the jobs and tasks of a request while its client stays, and cancels them as soon as it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import TypeVar

from starlette.types import Receive

from acorn.errors import AcornError
from acorn.generate.job import Job
from acorn.serve.context import Context
from acorn.serve.mailbox import ClientGoneError, Mailbox
from acorn.serve.scheduler import NotReadyError

Result = TypeVar("Result")


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


async def result_of(context: Context, task: Generator[None, None, Result], receive: Receive) -> Result:
    """The result of a task, which the engine runs between the turns of the texts.

    Args:
        receive: of the request, whose body was read.

    Raises:
        QueueFullError, NotReadyError, ClientGoneError, and what the task raises.
    """
    future = context.scheduler.run(task)
    with context.answering():
        async with watched(receive, future.cancel):
            try:
                return await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                if future.cancelled():
                    raise ClientGoneError from None
                raise
            except AcornError:
                if context.is_draining:  # what was left at the end of the time was ended
                    raise NotReadyError from None
                raise


@contextlib.asynccontextmanager
async def watched(receive: Receive, gone: Callable[[], object]) -> AsyncIterator[None]:
    """Inside the block, `gone` is called when the client closes the connection."""

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
