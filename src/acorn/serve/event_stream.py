"""Server-sent events: how a text is sent while it grows."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from acorn.serve.bodies import json_bytes
from acorn.serve.mailbox import ClientGoneError
from acorn.serve.request_errors import request_error

MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"

log = logging.getLogger("acorn.serve")


def event(value: Any) -> bytes:
    """An event. It has data alone: some clients take an `id` for the beginning of something else."""
    return b"data: " + json_bytes(value) + b"\n\n"


class EventStream:
    """A response whose objects are sent as events, then `[DONE]`; after an error, the error instead.

    Args:
        objects: gets the request's `receive`, and gives the objects of the stream. It is entered before the response
            begins, so that what it raises until its first object is an ordinary error.
    """

    def __init__(
        self, objects: Callable[[Receive], AsyncGenerator[dict[str, Any], None]], headers: Mapping[str, str]
    ) -> None:
        self._objects, self._headers = objects, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        objects = self._objects(receive)
        is_open = False

        async def begin() -> None:
            nonlocal is_open
            is_open = True
            own = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "x-accel-buffering": "no"}
            headers = [(name.lower().encode(), value.encode()) for name, value in {**own, **self._headers}.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        try:
            async with aclosing(objects):
                async for value in objects:
                    if not is_open:
                        await begin()
                    await send({"type": "http.response.body", "body": event(value), "more_body": True})
        except ClientGoneError:
            raise
        except Exception as error:
            if not is_open:
                raise
            refusal = request_error(error)
            if refusal.status == 500:  # others are no faults: the server stops
                log.exception("a stream ended with an error")
            await send({"type": "http.response.body", "body": event(refusal.body), "more_body": False})
            return
        if not is_open:
            await begin()
        await send({"type": "http.response.body", "body": DONE, "more_body": False})
