"""Equal requests get equal replies, to the last bit of every log probability: alone, and among others."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from torture import web
from torture.served import WORDS, Served, both, short_chunks, start_server, tiny_model, without_prefixes

CLIENTS = 24
"""Requests that are under way together."""

CHUNK = 16
"""Tokens of a chunk, so that prompts have several, of which the prefix cache keeps some."""

CONTEXT = 96

SHARE_CUT_OFF = 0.1
"""Of the requests beside them, whose clients leave at a random moment."""

Request = tuple[str, dict[str, Any]]  # path and body


def same_bytes(
    folder: Path,
    trials: int,
    precision: str = "fp32",
    seed: int = 0,
    model: Path | None = None,
    *,
    all_cores: bool = False,
) -> dict[str, Any]:
    """Asks for `trials` replies of servers under random load, and compares each with the reply to the same request
    by a server that has one slot and no prefix cache and does nothing else.

    Args:
        model: instead of a tiny one with short chunks.
        all_cores: the servers compute on all cores; otherwise on one.
    """
    chunks = short_chunks(CHUNK) if model is None else lambda: None
    model = model or tiny_model(folder / "model", CONTEXT)
    draw = random.Random(f"{seed}:{precision}")
    counts: dict[str, int] = {}
    options = ("--precision", precision)
    lone = start_server(
        model,
        folder / "alone.log",
        *options,
        "--slots",
        "1",
        prepare=both(chunks, without_prefixes),
        all_cores=all_cores,
    )
    facts = asyncio.run(_facts(lone))
    requests = [random_request(draw, *facts) for _ in range(max(12, trials // 20))]
    alone = asyncio.run(_alone(lone, requests))
    lone.stop()
    broken: list[dict[str, Any]] = []
    done = len(requests)
    for slots in (3, 16):
        log = folder / f"slots-{slots}.log"
        server = start_server(model, log, *options, "--slots", str(slots), prepare=chunks, all_cores=all_cores)
        want = (trials - len(requests)) // 2
        found = asyncio.run(_beside(server, requests, alone, want, random.Random(draw.random())))
        server.stop()
        broken += [{"slots": slots, **one} for one in found["broken"]]
        done += want
        for name, count in found["counts"].items():
            counts[name] = counts.get(name, 0) + count
    refused = [one for one in alone if not isinstance(one, str)]
    broken += [{"alone": one} for one in refused]
    return {"trials": done, "distinct": len(requests), "counts": counts, "broken": broken}


async def _facts(server: Served) -> tuple[int, int, bool]:
    (model,) = (await web.ask(server.port, web.get("/v1/models"))).json["data"]
    return model["vocab_size"], model["context_length"], model["has_chat_template"]


def random_request(draw: random.Random, vocab_size: int, context: int, has_chat: bool) -> Request:
    """A request with a seed that fits into the context, and whose prompt may begin as those of others do."""
    most = draw.choice([1, 3, 8, 24])
    body: dict[str, Any] = {
        "max_tokens": most,
        "seed": draw.randrange(1000),
        "temperature": draw.choice([0, 0.7, 1, 1.5]),
        "ignore_eos": draw.random() < 0.7,
    }
    options = {
        "top_k": draw.choice([1, 5, 40]),
        "top_p": draw.choice([0.5, 0.95]),
        "min_p": draw.choice([0.02, 0.2]),
        "repetition_penalty": draw.choice([0.8, 1.3]),
        "frequency_penalty": draw.choice([-0.5, 0.7]),
        "presence_penalty": draw.choice([-0.5, 0.7]),
        "logit_bias": {str(draw.randrange(vocab_size)): draw.choice([-100, -3, 2.5, 4]) for _ in range(3)},
        "stop": draw.choice(["e", ["ing", " the"], [".", "\n"]]),
        "n": draw.choice([2, 3]),
    }
    body |= {name: value for name, value in options.items() if draw.random() < 0.25}
    if has_chat and draw.random() < 0.2:
        words = " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))
        body["messages"] = [{"role": "user", "content": words}]
        if draw.random() < 0.5:
            body |= {"logprobs": True, "top_logprobs": draw.choice([0, 3, 20])}
        return "/v1/chat/completions", body
    if draw.random() < 0.5:
        body["logprobs"] = draw.choice([0, 1, 5, 20])
    if draw.random() < 0.2:
        body["echo"] = True
        if draw.random() < 0.4:
            body["max_tokens"] = 0

    def prompt() -> list[int]:
        shared = random.Random(draw.randrange(3))  # of three beginnings
        beginning = [shared.randrange(20, vocab_size) for _ in range(context)]
        length = draw.randrange(1, context - 24)
        own = min(length, draw.choice([0, 1, 2, 3, 4, 5, 9, 17]))
        return beginning[: length - own] + [draw.randrange(20, vocab_size) for _ in range(own)]

    kind = draw.random()
    if kind < 0.6:
        body["prompt"] = prompt()
    elif kind < 0.8:
        body["prompt"] = [prompt() for _ in range(draw.randint(2, 4))]
    else:
        body["prompt"] = " ".join(draw.choices(WORDS, k=draw.randint(0, 20)))
    return "/v1/completions", body


async def _alone(server: Served, requests: list[Request]) -> list[Any]:
    """The reply to each; what is no string is an error."""
    found = []
    for path, body in requests:
        reply = await web.ask(server.port, web.post(path, body))
        found.append(_whole(reply.json["choices"]) if reply.status == 200 else [reply.status, reply.json, body])
    return found


async def _beside(
    server: Served, requests: list[Request], alone: list[Any], trials: int, draw: random.Random
) -> dict[str, Any]:
    """Asks `trials` times, by CLIENTS clients that pause now and then; beside them others are cut off."""
    counts = {"streamed": 0, "whole": 0, "cut off beside them": 0}
    broken: list[dict[str, Any]] = []
    numbers = iter([draw.randrange(len(requests)) for _ in range(trials)])

    async def client() -> None:
        for number in numbers:
            path, body = requests[number]
            if draw.random() < SHARE_CUT_OFF:
                counts["cut off beside them"] += 1
                other_path, other = draw.choice(requests)
                await _cut_off(server, web.post(other_path, {**other, "stream": True}), draw)
            if draw.random() < 0.2:
                await asyncio.sleep(draw.random() * 0.05)
            streamed = draw.random() < 0.5
            counts["streamed" if streamed else "whole"] += 1
            reply = await web.ask(server.port, web.post(path, {**body, "stream": streamed}))
            if reply.status != 200:
                broken.append({"status": reply.status, "body": reply.body.decode(), "request": body})
                continue
            found = _whole(joined(reply.events) if streamed else reply.json["choices"])
            if found != alone[number]:
                broken.append({"streamed": streamed, "request": body, "alone": alone[number], "found": found})

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return {"counts": counts, "broken": broken}


async def _cut_off(server: Served, request: bytes, draw: random.Random) -> None:
    async with web.connected(server.port) as (_, writer):
        writer.write(request)
        await asyncio.sleep(draw.random() * 0.05)


def _whole(choices: list[Any]) -> str:
    """Choices as text that shows every bit: Python writes floats so that they read back equal."""
    return json.dumps(choices, sort_keys=True)


def joined(events: list[Any]) -> list[Any]:
    """The choices of a stream as they would be in one response."""
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        for part in event["choices"]:
            one = choices.setdefault(part["index"], {"index": part["index"], "logprobs": None, "finish_reason": None})
            assert one["finish_reason"] is None, "a part after the last one"
            one["finish_reason"] = part["finish_reason"]
            if "delta" in part:
                message = one.setdefault("message", {"role": "assistant", "content": "", "refusal": None})
                message["content"] += part["delta"].get("content") or ""
            else:
                one["text"] = one.get("text", "") + part["text"]
            if part.get("logprobs"):
                before = one["logprobs"] or {}
                one["logprobs"] = {
                    name: values if values is None else (before.get(name) or []) + values
                    for name, values in part["logprobs"].items()
                }
    return [choices[index] for index in sorted(choices)]
