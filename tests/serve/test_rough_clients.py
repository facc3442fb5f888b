"""Many clients that misbehave, against the engine. `make test-all` has hundreds of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_servers import Running, read_all, serving, wait_until

from acorn.checkpoint.load import LoadedModel
from acorn.serve.limits import LIMITS
from acorn.serve.scheduler import Scheduler

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"


def request(**fields: object) -> bytes:
    body = json.dumps({"prompt": "The old oak", **fields})
    return (HEAD.format(len(body)) + body).encode()


def text_of(running: Running) -> str:
    """The text of a seeded request, which is the same whatever else runs."""
    _, _, body = running.request("POST", "/v1/completions", {"prompt": "An acorn", "seed": 1, "max_tokens": 30})
    return json.loads(body)["choices"][0]["text"]


def is_idle(running: Running) -> bool:
    scheduler = running.server.context.scheduler
    return scheduler.active + scheduler.waiting + running.server.context.answers == 0


@pytest.mark.parametrize("clients", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_clients_that_are_cut_off_at_random_leave_nothing_behind(tiny: LoadedModel, clients: int) -> None:
    """Cut off while they send, wait or read, streamed or not."""

    def cut_off(number: int) -> None:
        draw = random.Random(number)
        sent = request(
            stream=draw.random() < 0.5, n=draw.randint(1, 3), max_tokens=draw.randint(1, 60), ignore_eos=True
        )
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
            connection.sendall(sent[: draw.choice([draw.randrange(len(sent)), len(sent)])])
            if draw.random() < 0.5:
                connection.settimeout(draw.choice([0.001, 0.01, 0.05]))
                with contextlib.suppress(OSError):
                    connection.recv(draw.choice([1, 100, 10_000]))
            if draw.random() < 0.5:  # closed with RST instead of FIN
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with serving(tiny, scheduler=Scheduler, slots=4) as running:
        expected = text_of(running)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(cut_off, range(clients)))
            assert text_of(running) == expected
        wait_until(lambda: is_idle(running))
        wait_until(lambda: not running.server.server_state.connections)
        wait_until(lambda: not running.server.server_state.tasks)


@pytest.mark.parametrize("clients", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_requests_that_never_end_are_closed_and_others_are_answered(tiny: LoadedModel, clients: int) -> None:
    limits = dataclasses.replace(LIMITS, request_seconds=3)
    with serving(tiny, scheduler=Scheduler, limits=limits) as running, contextlib.ExitStack() as stack:
        expected = text_of(running)
        slow = []
        for _ in range(clients):
            slow.append(socket.create_connection(("127.0.0.1", running.port), timeout=60))
            stack.enter_context(slow[-1])
            slow[-1].sendall(request()[:50])
        assert text_of(running) == expected
        for connection in slow:
            assert read_all(connection).startswith(b"HTTP/1.1 408 ")
        assert text_of(running) == expected


@pytest.mark.parametrize("clients", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_clients_that_read_nothing_are_cut_off_and_others_are_answered(tiny: LoadedModel, clients: int) -> None:
    limits = dataclasses.replace(LIMITS, write_seconds=1, queue=10_000)
    with serving(tiny, scheduler=Scheduler, limits=limits, slots=8) as running, contextlib.ExitStack() as stack:
        expected = text_of(running)
        for _ in range(clients):
            stuck = stack.enter_context(socket.socket())
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stuck.connect(("127.0.0.1", running.port))
            stuck.sendall(request(n=8, max_tokens=60, stream=True, logprobs=20, echo=True, ignore_eos=True))
        assert text_of(running) == expected
        wait_until(lambda: is_idle(running))
        wait_until(lambda: not running.server.server_state.connections)


def test_a_stream_under_load_has_all_its_events(tiny: LoadedModel) -> None:
    """Eight streams at once, each the same as alone."""

    def stream(seed: int) -> list[str]:
        body = {"prompt": "The old oak", "seed": seed, "max_tokens": 30, "stream": True}
        _, _, answer = running.request("POST", "/v1/completions", body)
        events = answer.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event[6:])["choices"][0]["text"] for event in events[:-2]]

    with serving(tiny, scheduler=Scheduler, slots=4) as running:
        alone = ["".join(stream(seed)) for seed in range(8)]
        with ThreadPoolExecutor(8) as pool:
            assert ["".join(parts) for parts in pool.map(stream, range(8))] == alone
