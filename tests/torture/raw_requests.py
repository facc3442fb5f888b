"""Requests that are no requests: whatever bytes arrive, a server answers them with a documented error, or closes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

from torture import web
from torture.served import start_server, tiny_model

TOGETHER = 400
"""Connections at a time."""

ASKED_BETWEEN = 500
"""After so many connections, an ordinary request must get the reply that it got at the beginning."""

DOCUMENTED = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 501}
"""Statuses that may come. Of the server errors only 501: a transfer coding that it does not know."""

LONGEST_ANSWER = 300.0
"""Seconds in which a connection must be answered and closed: the deadlines of a request and of an idle connection,
and time to compute on a busy machine. Beyond it, the server counts as hung."""

ORDINARY = web.post("/v1/completions", {"prompt": "the cat", "max_tokens": 4, "seed": 1, "logprobs": 2})

VALID = [
    web.post("/v1/completions", {"prompt": "the cat", "max_tokens": 4, "seed": 1}, close=False),
    web.post("/v1/completions", {"prompt": [30, 31], "max_tokens": 2, "stream": True, "logprobs": 3}, close=False),
    web.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}, close=False),
    web.post("/v1/tokenize", {"input": "naïve café"}, close=False),
    web.post("/v1/detokenize", {"ids": [30, 40, 50]}, close=False),
    b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5\r\n{"inp\r\n9\r\nut": "a"}\r\n0\r\n\r\n',
]
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b":",
    b" ",
    b"\t",
    b"\x7f",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/9.9",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT a:1 ",
    b"GET http://a/ ",
    b"Content-Length: 3\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 1e3\r\n",
    b"Content-Length: 99999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: x\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: close\r\n",
    b"Host: evil.example\r\n",
    b"Origin: null\r\n",
    b"Authorization: Basic ====\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: text/plain\r\n",
    b" folded\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n",
    b"0\r\n\r\n",
    b"5;ext=1\r\n",
    b"%00",
    b"/../..",
    b"?a=%ff&",
    b"#",
    b"NaN",
    b"1e400",
    b"-0",
    b"9" * 400,
    b'"\\ud800"',
    b'{"a":' * 40,
    b"[" * 2000,
    b"null",
    b"true",
    b'"',
    b"}",
    b"\\",
]


def raw_requests(
    folder: Path, trials: int, seed: int = 0, limits: dict[str, Any] | None = None, together: int = TOGETHER
) -> dict[str, Any]:
    """Sends `trials` broken requests to a server, each on a connection of its own.

    Args:
        limits: instead of the server's own.
        together: connections at a time.
    """
    server = start_server(tiny_model(folder / "model"), folder / "server.log", limits=limits)
    found = asyncio.run(_all(server.port, trials, together, random.Random(seed)))
    found |= {"memory": server.usage().memory, "files": server.usage().files, "code": server.stop()}
    if found["code"] != 143:
        found["broken"].append({"exit code": found["code"]})
    return found


async def _all(port: int, trials: int, together: int, draw: random.Random) -> dict[str, Any]:
    broken: list[dict[str, Any]] = []
    by_status: dict[str, int] = {}
    ordinary = _choices(await web.ask(port, ORDINARY))
    numbers = iter(range(trials))

    async def client() -> None:
        for number in numbers:
            sent = broken_request(draw)
            try:
                answers = await _answers(port, sent, draw)
            except (ValueError, TimeoutError) as error:
                broken.append({"sent": repr(sent), "error": f"{type(error).__name__}: {error}"})
                continue
            except OSError:
                answers = []  # the server reset the connection
            for one in answers:
                by_status[str(one.status)] = by_status.get(str(one.status), 0) + 1
            if wrong := [one for one in answers if not _is_right(one)]:
                broken.append({"sent": repr(sent), "answer": repr(wrong[0])})
            if not answers:
                by_status["closed"] = by_status.get("closed", 0) + 1
            if number % ASKED_BETWEEN == ASKED_BETWEEN - 1 and _choices(await web.ask(port, ORDINARY)) != ordinary:
                broken.append({"after": number, "error": "an ordinary request got another reply"})

    await asyncio.gather(*(client() for _ in range(min(together, trials))))
    if _choices(await web.ask(port, ORDINARY)) != ordinary:
        broken.append({"error": "at the end, an ordinary request got another reply"})
    return {"trials": trials, "by_status": by_status, "broken": broken}


def _choices(reply: web.Reply) -> Any:
    return reply.json["choices"]


def _is_right(reply: web.Reply) -> bool:
    """A documented status; an error says in JSON what is wrong, unless the request was HEAD."""
    if reply.status not in DOCUMENTED:
        return False
    if reply.status == 200 or not reply.body:
        return True
    return bool(reply.json["error"]["message"])


async def _answers(port: int, sent: list[bytes], draw: random.Random) -> list[web.Reply]:
    """Sends the parts, and reads until the server closes the connection."""
    async with web.connected(port) as (reader, writer):
        for part in sent:
            with contextlib.suppress(ConnectionError):
                writer.write(part)
            if len(sent) > 1:
                await asyncio.sleep(draw.random() * 0.02)
        received = await asyncio.wait_for(reader.read(-1), LONGEST_ANSWER)
    return web.replies(received)


def broken_request(draw: random.Random) -> list[bytes]:
    """The parts of a request, as they are sent one after the other."""
    request = bytearray(draw.choice(VALID))
    match draw.randrange(8):
        case 0:
            request = bytearray(draw.randbytes(draw.randint(1, 3000)))
        case 1:
            del request[draw.randrange(len(request)) :]
        case 2:
            request = bytearray(b"".join(draw.choices(VALID, k=draw.randint(2, 6))))  # pipelined
        case 3:
            place = request.index(b"\r\n") + 2
            request[place:place] = b"".join(
                b"X-%d: %b\r\n" % (number, b"x" * draw.choice([1, 100, 5000])) for number in range(draw.randint(1, 40))
            )
        case 4:
            body = bytearray(request.partition(b"\r\n\r\n")[2] or b"{}")
            for _ in range(draw.randint(1, 3)):
                body[draw.randrange(len(body))] = draw.randrange(256)
            request = bytearray(web.post(draw.choice(["/v1/completions", "/v1/chat/completions"]), bytes(body)))
        case 5:
            request = bytearray(web.post("/v1/completions", draw.choice(PIECES) * draw.choice([1, 3, 600])))
        case _:
            for _ in range(draw.randint(1, 4)):
                _mutate(request, draw)
    parts = [bytes(request)]
    if draw.random() < 0.3 and len(request) > 1:
        place = draw.randrange(1, len(request))
        parts = [bytes(request[:place]), bytes(request[place:])]
    return parts


def _mutate(request: bytearray, draw: random.Random) -> None:
    """Changes, removes, doubles or inserts something."""
    place = draw.randrange(len(request) + 1)
    match draw.randrange(4):
        case 0 if place < len(request):
            request[place] = draw.randrange(256)
        case 1:
            del request[place : place + draw.choice([1, 2, 10])]
        case 2:
            request[place:place] = request[place : place + draw.choice([1, 10, 60])]
        case _:
            lines = [0, *(index + 2 for index in range(len(request) - 1) if request[index : index + 2] == b"\r\n")]
            place = draw.choice([place, draw.choice(lines)])
            request[place:place] = draw.choice(PIECES)
