"""Clients that do not read, and clients that send a byte now and then: the others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from pathlib import Path
from typing import Any

from torture import web
from torture.served import Served, start_server, tiny_model

CONTEXT = 512
PROMPT = 300
"""Tokens of a stuck reader's prompt. With 20 likely tokens for each, the reply has about half a megabyte, which no
system buffers whole."""

ALTERNATIVES = 20
OTHERS = 4
"""Clients whose rate is measured."""

LOWEST_RATIO = 0.95
"""Of the others' rate, beside stuck readers."""

SEND_EVERY = (0.05, 2.0)
"""Seconds between two bytes of a slow sender: the shortest and the longest."""


def stuck_readers(
    folder: Path,
    readers: int,
    phases: int,
    seconds: float = 3.0,
    seed: int = 0,
    lowest_ratio: float = LOWEST_RATIO,
) -> dict[str, Any]:
    """Measures the rate of ordinary clients in `phases` pairs of phases of so many seconds: with and without readers
    that asked for much and read nothing."""
    server = start_server(tiny_model(folder / "model", CONTEXT), folder / "server.log")
    found = asyncio.run(_stuck(server, readers, phases, seconds, lowest_ratio, random.Random(seed)))
    found["code"] = server.stop()
    if found["code"] != 143:
        found["broken"].append({"exit code": found["code"]})
    return found


async def _stuck(
    server: Served, readers: int, phases: int, seconds: float, lowest_ratio: float, draw: random.Random
) -> dict[str, Any]:
    tokens = {"without": 0, "with": 0}
    idle = server.usage()
    memory = {"idle": idle.memory, "with readers": 0.0, "afterwards": 0.0}
    broken: list[dict[str, Any]] = []
    await _rate(server, seconds)  # the first tokens take longer
    for _ in range(phases):
        tokens["without"] += await _rate(server, seconds)
        stuck = await asyncio.gather(*(_asked(server.port, draw) for _ in range(readers)))
        while await server.figure("acorn_slots_used") + await server.figure("acorn_queue_length"):
            await asyncio.sleep(0.05)
        tokens["with"] += await _rate(server, seconds)
        open_now = sum(not _is_closed(one) for one in stuck)
        if open_now < readers // 2:
            broken.append({"error": f"only {open_now} of {readers} readers were still stuck"})
        memory["with readers"] = max(memory["with readers"], server.usage().memory)
        for one in stuck:
            one.close()
        while server.usage().files > idle.files + 2:
            await asyncio.sleep(0.01)
        memory["afterwards"] = server.usage().memory
    ratio = tokens["with"] / tokens["without"]
    if ratio < lowest_ratio:
        broken.append({"error": f"the others kept {ratio:.1%} of their rate"})
    return {
        "readers": readers,
        "tokens": tokens,
        "ratio": round(ratio, 3),
        "memory_mib": memory,
        "broken": broken,
    }


async def _rate(server: Served, seconds: float) -> int:
    """Tokens that OTHERS clients get in so many seconds."""
    until = time.monotonic() + seconds
    tokens = 0

    async def client(number: int) -> None:
        nonlocal tokens
        body = {"prompt": "the cat", "max_tokens": 32, "ignore_eos": True, "seed": number}
        request = web.post("/v1/completions", body)
        while time.monotonic() < until:
            tokens += (await web.ask(server.port, request)).json["usage"]["completion_tokens"]

    await asyncio.gather(*(client(number) for number in range(OTHERS)))
    return tokens


async def _asked(port: int, draw: random.Random) -> socket.socket:
    """A connection with little buffer of its own that asked, and is not read."""
    prompt = [draw.randrange(20, 300) for _ in range(PROMPT)]
    body = {"prompt": prompt, "echo": True, "logprobs": ALTERNATIVES, "max_tokens": 2, "stream": draw.random() < 0.5}
    loop = asyncio.get_running_loop()
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    await loop.sock_connect(one, ("127.0.0.1", port))
    await loop.sock_sendall(one, web.post("/v1/completions", body))
    return one


def _is_closed(one: socket.socket) -> bool:
    """Whether the server closed the connection; looks without reading."""
    try:
        return not one.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def slow_senders(folder: Path, senders: int, request_seconds: float | None = None, seed: int = 0) -> dict[str, Any]:
    """Connections that send a request byte by byte, while others ask.

    Args:
        request_seconds: the limit of a request's time, instead of the server's own.
    """
    from acorn.serve.limits import LIMITS

    limits = {} if request_seconds is None else {"request_seconds": request_seconds}
    server = start_server(tiny_model(folder / "model"), folder / "server.log", limits=limits)
    deadline = request_seconds or LIMITS.request_seconds
    found = asyncio.run(_slow(server, senders, deadline, LIMITS.linger_seconds, random.Random(seed)))
    found["code"] = server.stop()
    if found["code"] != 143:
        found["broken"].append({"exit code": found["code"]})
    return found


async def _slow(server: Served, senders: int, deadline: float, linger: float, draw: random.Random) -> dict[str, Any]:
    broken: list[dict[str, Any]] = []
    idle = server.usage()
    asked: list[float] = []
    is_over = asyncio.Event()

    async def other() -> None:
        request = web.post("/v1/completions", {"prompt": "the cat", "max_tokens": 4, "seed": 1})
        while not is_over.is_set():
            began = time.monotonic()
            reply = await web.ask(server.port, request)
            asked.append(time.monotonic() - began)
            if reply.status != 200:
                broken.append({"status": reply.status, "error": "an ordinary request was not answered"})

    others = [asyncio.create_task(other()) for _ in range(OTHERS)]
    outcomes = await asyncio.gather(*(_sent_slowly(server.port, draw) for _ in range(senders)))
    is_over.set()
    await asyncio.gather(*others)
    lasted = sorted(seconds for _, seconds in outcomes)
    by_status: dict[str, int] = {}
    for status, _ in outcomes:
        by_status[status] = by_status.get(status, 0) + 1
    # A request's time begins with its first byte; the longest pause before it is time too, and so is a busy machine.
    if lasted[-1] > 2 * deadline + linger + SEND_EVERY[1] + 5:
        broken.append({"error": f"a slow sender was connected for {lasted[-1]:.1f} s"})
    if wrong := set(by_status) - {"408", "closed"}:
        broken.append({"error": f"slow senders got {sorted(wrong)}"})
    while server.usage().files > idle.files + 2:
        await asyncio.sleep(0.01)
    asked.sort()
    return {
        "senders": senders,
        "by_status": by_status,
        "longest_seconds": round(lasted[-1], 2),
        "others": {"replies": len(asked), "slowest_seconds": round(asked[-1], 3)},
        "broken": broken,
    }


async def _sent_slowly(port: int, draw: random.Random) -> tuple[str, float]:
    """Sends bytes until the server closes the connection; returns the status, and how long that took, in seconds."""
    request = web.post("/v1/tokenize", {"input": "the cat " * 400})
    begin = draw.choice([0, request.index(b"\r\n\r\n") + 4])  # the rest of a head, or of a body, comes slowly
    began = time.monotonic()
    async with web.connected(port) as (reader, writer):
        writer.write(request[: max(begin, 1)])
        answer = asyncio.create_task(reader.read(-1))
        for place in range(max(begin, 1), len(request)):
            await asyncio.wait([answer], timeout=draw.uniform(*SEND_EVERY))
            if answer.done():
                break
            with contextlib.suppress(ConnectionError):
                writer.write(request[place : place + 1])
        try:
            received = await answer
        except ConnectionError:
            received = b""
    found = web.replies(received)
    return str(found[0].status) if found else "closed", time.monotonic() - began
