"""HTTP as the bytes that it is: requests are written by hand, so that they may be wrong, and responses are checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

ANSWERS_WITHIN = 600.0
"""Seconds after which a server counts as hung; nothing waits that long."""


@dataclass(frozen=True)
class Reply:
    """A response. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The objects of a stream that ended with `[DONE]`."""
        *events, end = self.body.decode("ascii").removesuffix("\n\n").split("\n\n")
        assert end == "data: [DONE]", end
        return [json.loads(event.removeprefix("data: ")) for event in events]


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def post(path: str, value: Any, *, close: bool = True) -> bytes:
    """A request with a JSON body; bytes are taken as the body itself."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n" + ("Connection: close\r\n" if close else "")
    return head.encode() + b"\r\n" + body


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, which is aborted at the end of the block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(port: int, request: bytes, within: float = ANSWERS_WITHIN) -> Reply:
    """The reply to a request whose connection is closed after it.

    Raises:
        OSError: the connection was refused or reset.
        TimeoutError: the connection was not closed in time.
        ValueError: there is no response, or a wrong one.
    """
    async with connected(port) as (reader, writer):
        writer.write(request)
        received = await asyncio.wait_for(reader.read(-1), within)
    (reply,) = replies(received)
    return reply


def replies(received: bytes) -> list[Reply]:
    """The responses in what a connection sent until it was closed; the last one may be cut off only if it says so.

    Raises:
        ValueError: something is no response, or not whole.
    """
    found = []
    while received:
        head, separator, received = received.partition(b"\r\n\r\n")
        if not separator:
            raise ValueError(f"no whole head: {head[:200]!r}")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        if version != "HTTP/1.1":
            raise ValueError(f"no response: {first[:200]!r}")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if status == "100":
            continue
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            body, received = _unchunked(received)
        elif not received.startswith(b"HTTP/1.1 "):  # a response to HEAD has a length and no body
            length = int(headers.get("content-length", len(received)))
            if received and len(received) < length:
                raise ValueError(f"{len(received)} of {length} bytes of a body")
            body, received = received[:length], received[length:]
        found.append(Reply(int(status), headers, body))
    return found


def _unchunked(received: bytes) -> tuple[bytes, bytes]:
    """A body in chunks, and what is behind it."""
    parts = []
    while True:
        size, separator, received = received.partition(b"\r\n")
        if not separator:
            raise ValueError("a body in chunks was cut off")
        length = int(size, 16)
        if len(received) < length + 2:
            raise ValueError("a chunk was cut off")
        parts.append(received[:length])
        received = received[length + 2 :]
        if length == 0:
            return b"".join(parts), received
