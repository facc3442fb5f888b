"""The load generator, against a server whose answers are known."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest

from benchmarks.load import percentile, put_load


def event(text: str, **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": text}], **more}).encode() + b"\n\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Three pieces and their number as five tokens; every request whose prompt is odd is refused."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = json.loads(await reader.readexactly(length))
    assert body["stream"] is True
    if body["prompt"] % 2:
        writer.write(b'HTTP/1.1 429 Too Many Requests\r\n\r\n{"error": {}}')
    else:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + event("a") + event("b") + event("c"))
        writer.write(b'data: {"choices": [], "usage": {"completion_tokens": 5}}\n\ndata: [DONE]\n\n')
    await writer.drain()
    writer.close()


def test_tokens_times_and_refusals_are_counted() -> None:
    ticks = itertools.count()

    async def measure() -> Any:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()
            bodies = ({"prompt": number} for number in itertools.count())
            return await put_load(address, bodies, clients=1, seconds=16, clock=lambda: float(next(ticks)))

    measured = asyncio.run(measure())
    assert measured.refused >= 1
    assert len(measured.first) >= 2
    assert measured.tokens == 5 * len(measured.first)
    assert measured.first == [1.0] * len(measured.first), (
        "one look at the clock before the request and one at the first piece"
    )
    assert measured.gaps == [1.0] * 2 * len(measured.first)
    facts = measured.facts()
    assert facts["tokens_per_second"] == pytest.approx(measured.tokens / measured.seconds)
    assert facts["gap_p99"] == 1.0


def test_percentiles_are_values_that_were_seen() -> None:
    values = list(range(100, 0, -1))
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([7.0], 99) == 7.0
