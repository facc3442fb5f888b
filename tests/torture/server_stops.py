"""Signals to a server that is busy: what runs is finished, and nothing new is taken."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import Any

from torture import web
from torture.served import Served, start_server, tiny_model

SLOTS = 2
CLIENTS = 6
"""Of which SLOTS are answered, and the others wait for a slot."""

TOKENS = 120
"""New tokens of each."""

EXITS_WITHIN = 35.0
"""Seconds from the first signal to the exit: 30 for what runs, and what it takes to close connections."""

KINDS: tuple[tuple[signal.Signals, ...], ...] = (
    (signal.SIGTERM,),
    (signal.SIGINT,),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGINT, signal.SIGTERM),
)
"""The signals of a trial, as trials take turns."""


def server_stops(folder: Path, trials: int, seed: int = 0) -> dict[str, Any]:
    """Stops `trials` servers while CLIENTS read streams.

    Returns:
        "finished": of the streams, those that were whole; "cut off": ended by a second signal.
    """
    model = tiny_model(folder / "model", TOKENS + 56)
    draw = random.Random(seed)
    counts = {"finished": 0, "cut off": 0, "refused": 0}
    longest = 0.0
    broken: list[dict[str, Any]] = []
    for number in range(trials):
        kind = KINDS[number % len(KINDS)]
        server = start_server(model, folder / f"{number}.log", "--slots", str(SLOTS))
        try:
            found = asyncio.run(_stop(server, kind, draw))
        finally:
            server.process.send(signal.SIGKILL)
            code = server.process.wait()
        if code != 128 + kind[0]:
            broken.append({"trial": number, "error": f"exit code {code} after {kind}"})
        if "Traceback" in (text := (folder / f"{number}.log").read_text()):
            broken.append({"trial": number, "error": text[-3000:]})
        for name in counts:
            counts[name] += found[name]
        longest = max(longest, found["seconds"])
        broken += [{"trial": number, "error": error} for error in found["errors"]]
    return {"trials": trials, **counts, "longest_seconds": round(longest, 2), "broken": broken}


async def _stop(server: Served, kind: tuple[signal.Signals, ...], draw: random.Random) -> dict[str, Any]:
    errors: list[str] = []
    counts = {"finished": 0, "cut off": 0, "refused": 0}
    readers = []
    for number in range(CLIENTS):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**24)
        body = {"prompt": "the cat", "seed": number, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
        writer.write(web.post("/v1/completions", body))
        readers.append((reader, writer))
    begun = await readers[0][0].readexactly(draw.randint(1, 4000))  # it is being answered
    while await server.figure("acorn_queue_length") + await server.figure("acorn_slots_used") < CLIENTS:
        if readers[0][0].at_eof():
            raise AssertionError("the texts are too short: one ended before all were taken")
    signalled = time.monotonic()
    server.process.send(kind[0])
    while "Stopping" not in server.process.log.read_text():
        await asyncio.sleep(0.001)
    for _ in range(3):
        try:
            reply = await web.ask(server.port, web.post("/v1/completions", {"prompt": "a", "max_tokens": 1}))
        except (OSError, ValueError):  # it listens no more
            counts["refused"] += 1
            continue
        if reply.status != 503 or not reply.headers.get("retry-after"):
            errors.append(f"a new request got {reply.status}")
        counts["refused"] += 1
    for one in kind[1:]:
        server.process.send(one)

    async def rest(number: int) -> bytes:
        received = begun if number == 0 else b""
        try:
            return received + await asyncio.wait_for(readers[number][0].read(-1), web.ANSWERS_WITHIN)
        except ConnectionError:
            return received

    for received in await asyncio.gather(*(rest(number) for number in range(CLIENTS))):
        try:
            (reply,) = web.replies(received)
            text = [event for event in reply.events if event["choices"]]
            counts["finished"] += 1
            if text[-1]["choices"][0]["finish_reason"] != "length":
                errors.append(f"a stream ended with {text[-1]}")
        except (ValueError, AssertionError):
            counts["cut off"] += 1
            if len(kind) == 1:
                errors.append(f"a stream was cut off: {received[-300:]!r}")
    while server.process.poll() is None and time.monotonic() - signalled < EXITS_WITHIN:
        await asyncio.sleep(0.005)
    if server.process.poll() is None:
        errors.append(f"it did not exit within {EXITS_WITHIN:g} s")
    for _, writer in readers:
        writer.transport.abort()
    return {**counts, "seconds": time.monotonic() - signalled, "errors": errors}
