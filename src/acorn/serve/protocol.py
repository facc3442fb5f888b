"""HTTP/1.1 on a socket: uvicorn's protocol with limits of size and time, whose errors are JSON.

A connection has at most one deadline at a time for what the client sends: until its request is complete, or, between
two requests, until it is closed as idle. What is sent has another one: the client has to read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from functools import partial
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from acorn.serve.access_log import UNKNOWN, note, write_line
from acorn.serve.bodies import json_bytes
from acorn.serve.context import Context
from acorn.serve.limits import Limits
from acorn.serve.request_errors import RequestError, bad, retry_later


class LimitedConnection(h11.Connection):
    """The state of a connection, with limits of a request's size.

    Attributes:
        refusal: why the request is refused, once `next_event` raised.
        in_request: a request has begun and is not complete.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self.limits = limits
        self.refusal: RequestError | None = None
        self.in_request = False
        self._body_bytes = 0

    def next_event(self) -> Any:
        """The next event.

        Raises:
            h11.RemoteProtocolError: the request is refused.
        """
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.refusal = self._refusal(error)
            raise
        if isinstance(event, h11.Request):
            self.in_request, self._body_bytes = True, 0
            self._check_head(event)
        elif isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            self._check_body(self._body_bytes)
        elif isinstance(event, h11.EndOfMessage):
            self.in_request = False
        return event

    def _refusal(self, error: h11.RemoteProtocolError) -> RequestError:
        if error.error_status_hint == 431:
            return self._head_too_long()
        status = error.error_status_hint if error.error_status_hint in (400, 501) else 400
        return RequestError(status, f"The request is not valid HTTP/1.1: {error}.", None, "invalid_http")

    def _head_too_long(self) -> RequestError:
        message = f"Request line and headers are longer than {self.limits.head_bytes:,} bytes."
        return RequestError(431, message, None, "headers_too_long")

    def _check_head(self, request: h11.Request) -> None:
        headers = [(name, value) for name, value in request.headers]
        size = len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n")
        size += sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
        if size > self.limits.head_bytes:
            self._refuse(self._head_too_long())
        found = dict(headers)
        if b"content-length" in found and b"transfer-encoding" in found:  # programs disagree which of them counts
            self._refuse(bad("The request has both Content-Length and Transfer-Encoding.", code="invalid_http"))
        self._check_body(int(found.get(b"content-length", b"0")))

    def _check_body(self, size: int) -> None:
        if size > self.limits.body_bytes:
            message = f"The body is longer than {self.limits.body_bytes:,} bytes."
            self._refuse(RequestError(413, message, None, "body_too_long"))

    def _refuse(self, refusal: RequestError) -> None:
        self.refusal = refusal
        raise h11.RemoteProtocolError(refusal.message)


class LimitedProtocol(H11Protocol):
    """uvicorn's protocol with deadlines and a limit of connections."""

    conn: LimitedConnection

    def __init__(self, context: Context, **more: Any) -> None:
        super().__init__(**more)
        self.context, self.limits = context, context.limits
        self.conn = LimitedConnection(self.limits)
        self.timeout_keep_alive = self.limits.keep_alive_seconds  # type: ignore[assignment]  # in whole seconds there
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._is_refused = False
        self._has_sent = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # With no buffer of its own, writing pauses when the client stops reading; the deadline then begins.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self.limits.connections:
            self._refuse(retry_later(429, "The server has as many connections as it takes.", "too_many_connections"))
        else:
            self._start_deadline()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._has_sent = True
        if self.cycle is None or self.cycle.response_complete:
            self._start_deadline()
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.conn.in_request:
            self._start_deadline()  # of a request that began behind another one
        elif self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self._stop_deadline()  # of the request that is answered now; that of the next one's head goes on

    def send_400_response(self, msg: str) -> None:
        """Called where `next_event` raised."""
        assert self.conn.refusal is not None
        self._refuse(self.conn.refusal)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        self._stop_write_deadline()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if not self._is_refused:
            super().shutdown()

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.request_seconds, self._request_is_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _request_is_late(self) -> None:
        self._deadline = None
        if not self._has_sent:
            self.transport.close()
            return
        message = f"The request was not complete within {self.limits.request_seconds:g} seconds."
        self._refuse(RequestError(408, message, None, "request_timeout"))

    def _refuse(self, refusal: RequestError) -> None:
        """Answers with an error, if nothing was answered yet, and closes the connection."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering:
            note(cast("MutableMapping[str, Any]", self.scope), status=refusal.status, code=refusal.code)
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        else:
            write_line(self.context, UNKNOWN, UNKNOWN, refusal.status, 0.0, code=refusal.code)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(refusal)
        self._linger()

    def _write(self, refusal: RequestError) -> None:
        body = json_bytes(refusal.body)
        headers = {**refusal.headers, "Content-Type": "application/json", "Connection": "close"}
        response = h11.Response(
            status_code=refusal.status,
            headers=[*headers.items(), ("Content-Length", str(len(body)))],
            reason=STATUS_PHRASES[refusal.status],
        )
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")

    def _linger(self) -> None:
        """Closes the connection once the client has, or a little later: closed at once, with something unread, the
        system would throw away the answer that is on its way."""
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self.loop.call_later(self.limits.linger_seconds, self.transport.abort)


def protocol_of(context: Context) -> Any:
    """What makes the protocol of a connection, for uvicorn."""
    return partial(LimitedProtocol, context)
