"""Clients that leave at a random moment: their slots are free at once, and nothing of them remains."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from torture import web
from torture.served import POOL, Served, Usage, growth, start_server, tiny_model

TOGETHER = 20
"""Clients at a time, for SLOTS slots: most of them wait for one."""

SLOTS = 4
CONTEXT = 1280
TOKENS = 1000
"""New tokens that each asks for, so that nobody's text ends before its client leaves."""

LARGEST_GROWTH = 24.0
"""MiB by which memory may grow: what the allocator keeps varies by a few."""


def clients_gone(folder: Path, trials: int, seed: int = 0) -> dict[str, Any]:
    """Cuts off `trials` clients: while they wait, while their prompts are read, while they read a stream."""
    model = tiny_model(folder / "model", CONTEXT)
    server = start_server(model, folder / "server.log", "--slots", str(SLOTS))
    found = asyncio.run(_all(server, trials, random.Random(seed)))
    found["code"] = server.stop()
    if found["code"] != 143:
        found["broken"].append({"exit code": found["code"]})
    return found


async def _all(server: Served, trials: int, draw: random.Random) -> dict[str, Any]:
    broken: list[dict[str, Any]] = []
    left: dict[str, int] = {}
    usages: list[Usage] = []
    freed: list[float] = []
    asked = 0
    while asked < trials:
        number = min(TOGETHER, trials - asked)
        asked += number
        for stage in await asyncio.gather(*(_leave(server.port, draw) for _ in range(number))):
            left[stage] = left.get(stage, 0) + 1
        began = time.monotonic()
        before = await _generated(server)
        while await server.figure("acorn_slots_used") + await server.figure("acorn_queue_length"):
            if time.monotonic() - began > web.ANSWERS_WITHIN:
                broken.append({"after": asked, "error": "slots are still used"})
                break
        freed.append(time.monotonic() - began)
        after = await _generated(server)
        # At most the step that was under way, and one of those whose end the event loop did not hear of yet.
        if after - before > 4 * SLOTS:
            broken.append({"after": asked, "error": f"{after - before:.0f} tokens for clients that were gone"})
        usages.append(server.usage())
    reply = await web.ask(server.port, web.post("/v1/completions", {"prompt": "a", "max_tokens": 3}))
    if reply.status != 200:
        broken.append({"error": f"status {reply.status} at the end"})
    grown = growth(usages)
    if grown > LARGEST_GROWTH:
        broken.append({"error": f"memory grew by {grown} MiB"})
    if usages[-1].files > usages[0].files + 2 or usages[-1].threads > usages[0].threads + POOL:
        broken.append({"error": f"{usages[0]} became {usages[-1]}"})
    freed.sort()
    return {
        "trials": trials,
        "left": left,
        "freed_seconds": {"median": freed[len(freed) // 2], "longest": freed[-1]},
        "growth_mib": grown,
        "usage": [list(usages[0]), list(usages[-1])],
        "broken": broken,
    }


async def _generated(server: Served) -> float:
    return await server.figure("acorn_completion_tokens_total")


async def _leave(port: int, draw: random.Random) -> str:
    """A client that asks and leaves; returns at which stage."""
    prompt = [draw.randrange(20, 300) for _ in range(draw.choice([1, 30, CONTEXT - TOKENS]))]
    body = {"prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "n": draw.choice([1, 1, 3])}
    request = web.post("/v1/completions", {**body, "stream": draw.random() < 0.8})
    async with web.connected(port) as (reader, writer):
        stage = draw.choice(["sending", "waiting", "reading"])
        if stage == "sending":
            writer.write(request[: draw.randrange(1, len(request))])
            await writer.drain()
            return stage
        writer.write(request)
        await asyncio.sleep(draw.random() * 0.2)
        if stage == "reading":
            try:
                await asyncio.wait_for(reader.readexactly(draw.randint(1, 3000)), 3)
            except TimeoutError:
                return "waiting"
        if draw.random() < 0.5:
            writer.close()  # in order; the others are aborted
        return stage
