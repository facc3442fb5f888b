"""One line of JSON for each request, on stderr. It never has a prompt, an answer, a key or a query string."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acorn.serve.bodies import error_response
from acorn.serve.context import Context
from acorn.serve.mailbox import ClientGoneError
from acorn.serve.request_errors import request_error

log = logging.getLogger("acorn.serve")
access = logging.getLogger("acorn.serve.access")

CLIENT_GONE = 499
"""Status in log and metrics of a request whose client closed the connection; nginx has the same. It is never sent."""

NO_ROUTE = "(none)"
"""Instead of the path of a request that no route takes: it could be anything."""

_NOTES = "acorn.notes"


def note(scope: Scope, **facts: Any) -> None:
    """Adds facts to the line of a request."""
    scope.setdefault(_NOTES, {}).update(facts)


def write_line(context: Context, method: str, route: str, status: int, seconds: float, **facts: Any) -> None:
    """Writes the line of a request, and counts the request."""
    context.metrics.requests.labels(method, route, str(status)).inc()
    if "code" in facts:
        context.metrics.refusals.labels(str(status), facts["code"]).inc()
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": now, "method": method, "route": route, "status": status, "seconds": round(seconds, 4), **facts}
    access.info(json.dumps(line))


class AccessLog:
    """ASGI middleware around all others: gives each request an id and writes its line. An exception becomes an error
    in JSON, unless the response has begun."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self.app, self.context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), 0
        request_id = uuid.uuid4().hex
        note(scope, request_id=request_id)

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = _without_code(scope, message)
                message = {**message, "headers": [*headers, (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            await self.app(scope, receive, send_and_see)
        except ClientGoneError:
            status = CLIENT_GONE
            self.context.metrics.cancelled.inc()
        except Exception as error:
            is_begun = bool(status)
            refusal = request_error(error)
            if refusal.status >= 500 and refusal.status != 503:
                log.exception("request %s failed", request_id)
            if is_begun:
                raise
            await error_response(refusal)(scope, receive, send_and_see)
        finally:
            route = scope.get("acorn.route", NO_ROUTE)
            seconds = time.monotonic() - began
            method = scope["method"] if scope["method"] in METHODS else NO_ROUTE
            write_line(self.context, method, route, status or CLIENT_GONE, seconds, **scope[_NOTES])


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Methods that log and metrics name; anything else could be any text."""


def _without_code(scope: MutableMapping[str, Any], message: Message) -> list[tuple[bytes, bytes]]:
    """The headers of a response without the error's code, which goes into the line instead."""
    headers = []
    for name, value in message.get("headers", []):
        if name == b"x-acorn-error":
            note(scope, code=value.decode("latin-1"))
        else:
            headers.append((name, value))
    return headers
