"""A load generator for servers: several clients in a closed loop, each streaming completions one after another.

Speaks HTTP over sockets, so that it costs little on a machine that the server needs. Measured of each request: time to
the first token, times between tokens, number of tokens.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

LONGEST_WAIT = 300.0
"""Seconds after which a server that says nothing is given up."""


@dataclass
class Measured:
    """What the clients saw.

    Attributes:
        seconds: from the first request to the end of the last.
        tokens: generated tokens, as the server counts them.
        first: seconds from a request to its first token, of each request.
        gaps: seconds between two pieces of a text.
        refused: requests that were answered with a status other than 200.
    """

    seconds: float = 0.0
    tokens: int = 0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    refused: int = 0

    def facts(self) -> dict[str, float]:
        """Medians and 99th percentiles, in seconds."""
        found = {"tokens_per_second": self.tokens / self.seconds, "requests": len(self.first), "refused": self.refused}
        for name, values in (("first", self.first), ("gap", self.gaps)):
            if values:
                found |= {f"{name}_p50": statistics.median(values), f"{name}_p99": percentile(values, 99)}
        return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` percent of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


async def put_load(
    address: tuple[str, int],
    bodies: Iterator[dict[str, Any]],
    *,
    clients: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Sends requests for `seconds`; those that run then are finished and counted.

    Args:
        bodies: of the requests; `stream` and the wish for usage are added.
    """
    measured = Measured()
    begin = clock()

    async def client() -> None:
        while clock() - begin < seconds:
            await asyncio.wait_for(_request(address, next(bodies), measured, clock), LONGEST_WAIT)

    await asyncio.gather(*(client() for _ in range(clients)))
    measured.seconds = clock() - begin
    return measured


async def _request(
    address: tuple[str, int], body: dict[str, Any], measured: Measured, clock: Callable[[], float]
) -> None:
    content = json.dumps(body | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    begin = last = clock()
    reader, writer = await asyncio.open_connection(*address)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + content)
    status = await reader.readline()
    if b" 200 " not in status:
        measured.refused += 1
    pieces, counted = 0, 0
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if usage := event.get("usage"):
            counted = usage["completion_tokens"]
        if not event.get("choices"):
            continue
        now = clock()
        if not pieces:
            measured.first.append(now - begin)
        else:
            measured.gaps.append(now - last)
        last = now
        pieces += 1
    measured.tokens += counted or pieces
    writer.close()
