"""More requests than a server can answer, for a long time: the rest is refused, and nothing grows."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from torture import web
from torture.served import POOL, Served, Usage, growth, start_server, tiny_model

TIMES = 4
"""Requests a second, of those that the server can answer."""

SLOTS = 4
MEASURED_SECONDS = 5.0
"""How long the server's own rate is measured."""

LARGEST_GROWTH = 24.0
"""MiB by which memory may grow: what the allocator keeps varies by a few."""

MOST_FILES = 1200
"""Open files: the limits allow 1,000 connections, and a hundred more may be accepted before they are refused."""


def overload(folder: Path, seconds: float, seed: int = 0, queue: int | None = None) -> dict[str, Any]:
    """Sends TIMES as many requests as the server can answer, for so long.

    Args:
        queue: texts that may wait, instead of the server's own limit.
    """
    limits = {} if queue is None else {"queue": queue}
    model = tiny_model(folder / "model")
    server = start_server(model, folder / "server.log", "--slots", str(SLOTS), limits=limits)
    found = asyncio.run(_overload(server, seconds, random.Random(seed)))
    found["code"] = server.stop()
    if found["code"] != 143:
        found["broken"].append({"exit code": found["code"]})
    return found


def _request(draw: random.Random) -> bytes:
    body = {"prompt": [draw.randrange(20, 300) for _ in range(draw.choice([1, 20, 100]))], "ignore_eos": True}
    return web.post(
        "/v1/completions", {**body, "max_tokens": draw.choice([16, 64, 128]), "stream": draw.random() < 0.5}
    )


async def _overload(server: Served, seconds: float, draw: random.Random) -> dict[str, Any]:
    broken: list[dict[str, Any]] = []
    idle = server.usage()
    own = await _own_rate(server, draw, min(MEASURED_SECONDS, seconds))
    by_status: dict[str, int] = {}
    usages: list[Usage] = []
    running: set[asyncio.Task[None]] = set()

    async def client() -> None:
        try:
            reply = await web.ask(server.port, _request(draw), within=600)
        except (OSError, ValueError, TimeoutError) as error:
            broken.append({"error": f"{type(error).__name__}: {error}"})
            return
        by_status[str(reply.status)] = by_status.get(str(reply.status), 0) + 1
        if reply.status == 429 and not reply.headers.get("retry-after", "").isdigit():
            broken.append({"error": "429 without Retry-After"})
        elif reply.status not in (200, 429):
            broken.append({"status": reply.status, "body": reply.body.decode()})

    began = last = time.monotonic()
    sent = 0
    while time.monotonic() - began < seconds:
        while sent < TIMES * own * (time.monotonic() - began):
            sent += 1
            task = asyncio.create_task(client())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.01)
        if time.monotonic() - last > seconds / 100:
            last = time.monotonic()
            usages.append(server.usage())
    lasted = time.monotonic() - began
    await asyncio.gather(*running)
    while server.usage().files > idle.files + 2:
        if time.monotonic() - began > lasted + web.ANSWERS_WITHIN:
            broken.append({"error": f"{server.usage().files} open files, {idle.files} at the beginning"})
            break
        await asyncio.sleep(0.05)
    grown = growth(usages)
    if grown > LARGEST_GROWTH:
        broken.append({"error": f"memory grew by {grown} MiB"})
    if max(one.files for one in usages) > MOST_FILES:
        broken.append({"error": f"{max(one.files for one in usages)} open files"})
    if max(one.threads for one in usages) > usages[0].threads + POOL:
        broken.append({"error": f"threads: {sorted({one.threads for one in usages})}"})
    if not by_status.get("429"):
        broken.append({"error": "nothing was refused: the load was no overload"})
    return {
        "seconds": round(lasted),
        "own_rate": round(own, 1),
        "requests": sent,
        "by_status": by_status,
        "growth_mib": grown,
        "memory_mib": [usages[0].memory, max(one.memory for one in usages), usages[-1].memory],
        "threads": sorted({one.threads for one in usages}),
        "files": max(one.files for one in usages),
        "broken": broken,
    }


async def _own_rate(server: Served, draw: random.Random, seconds: float) -> float:
    """Requests a second that the server can answer: SLOTS clients ask one after the other."""
    began = time.monotonic()
    answered = 0

    async def client() -> None:
        nonlocal answered
        while time.monotonic() - began < seconds:
            await web.ask(server.port, _request(draw))
            answered += 1

    await asyncio.gather(*(client() for _ in range(2 * SLOTS)))
    return answered / (time.monotonic() - began)
