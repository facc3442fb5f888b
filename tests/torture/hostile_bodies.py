"""Single requests that killed other servers, and bodies of random values: each gets an answer, and the server lives."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from torture import web
from torture.served import start_server, tiny_model

TOGETHER = 16
DOCUMENTED = {200, 400, 404, 413, 429}

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def _chat(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, **more}


def _completion(**more: Any) -> dict[str, Any]:
    return {"prompt": "a", "max_tokens": 2, **more}


KNOWN: dict[str, tuple[str, Any, int]] = {
    "bias of an unknown token": (COMPLETIONS, _completion(logit_bias={"999999": 1}), 400),
    "bias of a negative token": (COMPLETIONS, _completion(logit_bias={"-1": 1}), 400),
    "bias that excludes everything": (COMPLETIONS, _completion(logit_bias={str(one): -100 for one in range(300)}), 200),
    "bias of null": (COMPLETIONS, _completion(logit_bias={"5": None}), 400),
    "tokens that do not fit": (COMPLETIONS, _completion(max_tokens=10**9), 400),
    "more tokens than 64 bits": (COMPLETIONS, b'{"prompt": "a", "max_tokens": 99999999999999999999}', 400),
    "tokens below zero": (COMPLETIONS, _completion(max_tokens=-1), 400),
    "a digit too many for Python": (COMPLETIONS, b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}", 400),
    "an infinite float": (COMPLETIONS, b'{"prompt": "a", "temperature": 1e400}', 400),
    "a float below zero": (COMPLETIONS, b'{"prompt": "a", "temperature": -1e400}', 400),
    "NaN": (COMPLETIONS, b'{"prompt": "a", "temperature": NaN}', 400),
    "the smallest temperature": (COMPLETIONS, _completion(temperature=5e-324), 200),
    "a very low temperature": (COMPLETIONS, _completion(temperature=1e-40), 200),
    "the smallest top_p": (COMPLETIONS, _completion(top_p=5e-324), 400),
    "the largest min_p": (COMPLETIONS, _completion(min_p=1 - 2**-53), 200),
    "the largest top_k": (COMPLETIONS, _completion(top_k=2**63 - 1), 200),
    "the smallest seed": (COMPLETIONS, _completion(seed=-(2**63)), 200),
    "a seed of 65 bits": (COMPLETIONS, _completion(seed=2**64), 400),
    "the largest penalties": (
        COMPLETIONS,
        _completion(repetition_penalty=100, frequency_penalty=2, presence_penalty=2, logit_bias={"30": 100}),
        200,
    ),
    "the smallest penalties": (COMPLETIONS, _completion(repetition_penalty=0.01, frequency_penalty=-2), 200),
    "nested objects": (COMPLETIONS, b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
    "nested lists": (COMPLETIONS, b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "nested content": (CHAT, _chat(messages=[{"role": "user", "content": [[[[["a"]]]]]}]), 400),
    "a chat of 50 KB": (CHAT, _chat(messages=[{"role": "user", "content": "the cat " * 6400}]), 400),
    "50 KB without a space": (COMPLETIONS, _completion(prompt="a" * 50_000), 400),
    "50 KB of spaces": (COMPLETIONS, _completion(prompt=" " * 50_000), 400),
    "50 KB of an accent": (COMPLETIONS, _completion(prompt="a" + "\u0301" * 25_000), 400),
    "half of a surrogate pair": (COMPLETIONS, b'{"prompt": "\\ud800", "max_tokens": 2}', 400),
    "the other half": (CHAT, b'{"messages": [{"role": "user", "content": "a\\udc00"}]}', 400),
    "half a pair in a key": (COMPLETIONS, b'{"prompt": "a", "\\ud800": 1}', 400),
    "half a pair in a stop": (COMPLETIONS, b'{"prompt": "a", "stop": "\\udfff"}', 400),
    "a zero byte": (COMPLETIONS, _completion(prompt="\0" * 20), 200),
    "control tokens as text": (CHAT, _chat(messages=[{"role": "user", "content": "<|end|><|assistant|>"}]), 200),
    "an unknown token id": (COMPLETIONS, _completion(prompt=[2**31 - 1]), 400),
    "a negative token id": (COMPLETIONS, _completion(prompt=[-1]), 400),
    "a token id of 64 bits": (COMPLETIONS, _completion(prompt=[2**63 - 1]), 400),
    "an empty list of ids": (COMPLETIONS, _completion(prompt=[]), 400),
    "an empty list in a list": (COMPLETIONS, _completion(prompt=[[]]), 400),
    "mixed prompts": (COMPLETIONS, _completion(prompt=["a", [3]]), 400),
    "an empty prompt": (COMPLETIONS, _completion(prompt=""), 200),
    "many texts": (COMPLETIONS, _completion(prompt=["a"] * 100, n=100), 400),
    "n below one": (COMPLETIONS, _completion(n=0), 400),
    "an empty stop": (COMPLETIONS, _completion(stop=""), 400),
    "echo without tokens": (COMPLETIONS, _completion(echo=True, max_tokens=0, logprobs=20), 200),
    "no tokens": (COMPLETIONS, _completion(max_tokens=0, stream=True), 200),
    "an unknown token to decode": ("/v1/detokenize", {"ids": [2**31 - 1]}, 400),
    "nothing to decode": ("/v1/detokenize", {"ids": []}, 200),
    "90 KB to encode": ("/v1/tokenize", {"input": "ab " * 30_000}, 200),
    "too many tokens to encode": ("/v1/tokenize", {"input": "ab " * 100_000}, 400),
    "more than 1 MiB": ("/v1/tokenize", {"input": "ab " * 400_000}, 413),
    "no messages": (CHAT, _chat(messages=[]), 400),
    "a template's tag": (CHAT, _chat(messages=[{"role": "user", "content": "{{ 1/0 }}{% for %}"}]), 200),
    "null in every field": (COMPLETIONS, dict.fromkeys(["prompt", "max_tokens", "n", "stop", "seed", "stream"]), 200),
    "null for the body": (COMPLETIONS, b"null", 400),
    "null for a message": (CHAT, _chat(messages=[None]), 400),
    "null for content": (CHAT, _chat(messages=[{"role": "user", "content": None}]), 400),
}
"""Request -> route, body, and the status that it must get."""

FIELDS = (
    "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "n", "seed",
    "stop", "stream", "stream_options", "logprobs", "top_logprobs", "echo", "logit_bias", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "ignore_eos", "model", "tools", "best_of", "suffix", "user",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 5, 0.5, 1.0, -0.5, 1e308, 1e-308, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), "", "a",
    "1", "\0", "é" * 9, "the cat", [], [None], [1], [30, 40],
    ["a", "b"], [[30], [31]], [[]], {}, {"30": 5}, {"30": None},
    {"include_usage": True}, [{"role": "user", "content": "a"}], [{"role": "user", "content": [{"type": "text"}]}],
)  # fmt: skip


def hostile_bodies(folder: Path, trials: int, seed: int = 0, model: Path | None = None) -> dict[str, Any]:
    """Sends each of KNOWN, then `trials` bodies of random values in known fields."""
    server = start_server(model or tiny_model(folder / "model"), folder / "server.log")
    found = asyncio.run(_all(server.port, trials, random.Random(seed)))
    found["code"] = server.stop()
    if found["code"] != 143:
        found["broken"].append({"exit code": found["code"]})
    return found


async def _all(port: int, trials: int, draw: random.Random) -> dict[str, Any]:
    broken: list[dict[str, Any]] = []
    by_status: dict[str, int] = {}
    for name, (path, body, status) in KNOWN.items():
        reply = await web.ask(port, web.post(path, body))
        if reply.status != status:
            broken.append(
                {"request": name, "status": reply.status, "wanted": status, "body": reply.body[:500].decode()}
            )
    numbers = iter(range(trials))

    async def client() -> None:
        for _ in numbers:
            path, body = draw.choice([CHAT, COMPLETIONS]), random_body(draw)
            try:
                reply = await web.ask(port, web.post(path, body))
            except (OSError, ValueError, TimeoutError) as error:
                broken.append({"request": body, "error": f"{type(error).__name__}: {error}"})
                continue
            by_status[str(reply.status)] = by_status.get(str(reply.status), 0) + 1
            if reply.status not in DOCUMENTED:
                broken.append({"request": body, "status": reply.status, "body": reply.body.decode()})

    await asyncio.gather(*(client() for _ in range(TOGETHER)))
    reply = await web.ask(port, web.post(COMPLETIONS, _completion()))
    if reply.status != 200:
        broken.append({"error": f"status {reply.status} at the end"})
    return {"trials": len(KNOWN) + trials, "by_status": by_status, "broken": broken}


def random_body(draw: random.Random) -> dict[str, Any]:
    """A body that is right except for some of its fields, if at all."""
    body: dict[str, Any] = {"max_tokens": 3}
    body |= {"prompt": "a"} if draw.random() < 0.5 else {"messages": [{"role": "user", "content": "a"}]}
    for field in draw.sample(FIELDS, draw.randint(1, 4)):
        body[field] = draw.choice(VALUES)
    if draw.random() < 0.1:  # deeper inside
        body = json.loads(json.dumps(body).replace('"a"', json.dumps(draw.choice(VALUES))))
    return body
