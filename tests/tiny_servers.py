"""Servers in a thread of the test's process, with a tiny model. They need the extra `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fake_scheduler import FakeScheduler
from openai import OpenAI
from small_models import LINES, random_model_of

from acorn.checkpoint.load import LoadedModel
from acorn.runtime.choose import runtime_for_inference
from acorn.serve.limits import LIMITS, Limits
from acorn.serve.scheduler import Scheduler
from acorn.serve.server import Server, Settings
from acorn.tokenizer.template_format import chat_format_of
from acorn.tokenizer.training import train


class RefusingScheduler(Scheduler):
    """The engine, which refuses everything with `refusal` while that is set."""

    refusal: Exception | None = None

    def check_room(self, wanted: int = 1) -> None:
        if self.refusal is not None:
            raise self.refusal
        super().check_room(wanted)


BLOCK_SIZE = 64
NAME = "tiny"
KEY = "a-key-of-tests"


def tiny_language_model(*, chat: bool = True) -> LoadedModel:
    """A model with random weights and one block, and a byte-level BPE."""
    tokenizer = train(lambda: LINES, "bpe", 340)
    model = random_model_of("modern", tokenizer.vocab_size, BLOCK_SIZE, n_layer=1)
    template = chat_format_of(tokenizer).template if chat else ""
    return LoadedModel(model, tokenizer, model.config, Path("nowhere"), 7, chat_template=template)


@dataclass
class Running:
    """A server that answers."""

    server: Server
    loaded: LoadedModel

    @property
    def port(self) -> int:
        return int(self.server.socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def scheduler(self) -> FakeScheduler:
        return self.server.context.scheduler  # type: ignore[return-value]

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The status, headers and body of a response on a connection of its own.

        Args:
            body: bytes, or what is sent as JSON.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            given = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, {**given, **(headers or {})})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()

    def exchange(self, sent: bytes) -> bytes:
        """Everything that the server answers to some bytes, until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(sent)
            return read_all(connection)

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes the connection, or breaks it."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does, a minute at most."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@contextlib.contextmanager
def serving(
    loaded: LoadedModel,
    *,
    scheduler: type = FakeScheduler,
    limits: Limits = LIMITS,
    key: str | None = None,
    slots: int = 4,
    load: Callable[[], LoadedModel] | None = None,
    wait: bool = True,
    run: Path | None = None,
    compared: tuple[Path, ...] = (),
) -> Iterator[Running]:
    """A server of `loaded` in a thread, which ends with the block.

    Args:
        load: what is called to load the model instead.
        run: the folder that the model is of; without one the name is NAME.
        compared: what the page can compare with.
        wait: until the model is loaded.
    """
    server = Server(
        Settings(run or NAME, port=0, key=key, slots=slots, compared=compared),
        dataclasses.replace(runtime_for_inference("cpu", "auto"), threads=1),
        say=lambda text: None,
        limits=limits,
        load_model=load or (lambda: loaded),
        scheduler=scheduler,
    )
    has_started, is_ready = threading.Event(), threading.Event()
    server.when_started, server.when_ready = has_started.set, is_ready.set
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[server.socket])), daemon=True)
    thread.start()
    try:
        assert has_started.wait(60)
        if wait:
            assert is_ready.wait(60)
        yield Running(server, loaded)
    finally:
        server.should_exit = True
        if scheduler is FakeScheduler:
            server.context.scheduler.gate.set()
        thread.join(30)
        assert not thread.is_alive()
