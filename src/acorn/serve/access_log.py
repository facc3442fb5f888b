"""One line of JSON for each request, on stderr. It never has a prompt, an answer, a key or a query string."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping
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

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

UNKNOWN = "(unknown)"
"""Instead of a path that no route takes, and of other methods: they could be any text."""

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
    """ASGI middleware: gives each request an id, answers exceptions with errors in JSON, and writes the line.

    Args:
        routes: endpoint -> path, for the line.
    """

    def __init__(self, app: ASGIApp, context: Context, routes: Mapping[Any, str]) -> None:
        self.app, self.context, self.routes = app, context, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0
        request_id = uuid.uuid4().hex
        note(scope, request_id=request_id)

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, send_and_see)
        except ClientGoneError:
            status = scope[_NOTES].get("status", CLIENT_GONE)  # the protocol may have refused the request meanwhile
            self.context.metrics.cancelled.inc(status == CLIENT_GONE)
        except Exception as error:
            refusal = request_error(error)
            note(scope, code=refusal.code or "error")
            if refusal.status == 500:
                log.exception("request %s failed", request_id)
            if status:  # the response has begun: all that is left is to end it early
                raise
            await error_response(refusal)(scope, receive, send_and_see)
        finally:
            method = scope["method"] if scope["method"] in METHODS else UNKNOWN
            route = self.routes.get(scope.get("endpoint"), UNKNOWN)
            facts = {**scope[_NOTES]} | {"status": status or CLIENT_GONE}
            write_line(self.context, method, route, seconds=time.monotonic() - began, **facts)
