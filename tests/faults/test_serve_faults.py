"""Faults of requests to the server, and of the server as a process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_servers import KEY, Running, read_all, serving, tiny_language_model, wait_until

from acorn.checkpoint.load import LoadedModel
from acorn.serve.limits import LIMITS

COMPLETIONS, HEAD = "/v1/completions", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return tiny_language_model()


@pytest.fixture(scope="module")
def running(tiny: LoadedModel) -> Iterator[Running]:
    with serving(tiny) as server:
        yield server


@pytest.mark.fault(125)
def test_requests_that_are_malformed_or_too_long(running: Running) -> None:
    """Fault 125: bad JSON, a long body (chunked, or of a false length), long headers."""
    for body in (b"{", b"[]", b'{"prompt": NaN}', b'{"prompt": "\xff"}', b'{"a": ' + b"[" * 50_000):
        assert running.request("POST", COMPLETIONS, body)[0] == 400
    long = b" " * (LIMITS.body_bytes + 1)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(long), long)
    for sent, status in (
        (HEAD + b"Content-Length: 9999999\r\n\r\n{}", 413),
        (HEAD + chunked, 413),
        (HEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ):
        assert running.exchange(sent).startswith(b"HTTP/1.1 %d" % status)


@pytest.mark.fault(126)
def test_slow_clients(tiny: LoadedModel) -> None:
    """Fault 126: a request that does not end, and a client that does not read; others are answered meanwhile."""
    limits = dataclasses.replace(LIMITS, request_seconds=0.2, write_seconds=0.2)
    with serving(tiny, limits=limits) as server, contextlib.closing(socket.socket()) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", server.port))
        body = json.dumps({"prompt": "a", "max_tokens": 60, "n": 100, "stream": True, "logprobs": 20}).encode()
        stuck.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(HEAD)
            assert server.request("POST", COMPLETIONS, {"prompt": "a"})[0] == 200
            assert read_all(slow).startswith(b"HTTP/1.1 408")
        wait_until(lambda: not server.server.server_state.connections)
        wait_until(lambda: server.server.context.answers == 0)


@pytest.mark.fault(127)
@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("n", 10**9, "128"),
        ("max_tokens", 10**9, "64"),
        ("stop", ["a"] * 1000, "16"),
        ("logit_bias", {str(number): 1 for number in range(5000)}, "1,024"),
        ("prompt", ["a"] * 1000, "128"),
    ],
)
def test_huge_values(running: Running, field: str, value: object, limit: str) -> None:
    """Fault 127: the answer names the field and its limit."""
    status, _, body = running.request("POST", COMPLETIONS, {"prompt": "a", field: value})
    error = json.loads(body)["error"]
    assert (status, error["param"]) == (400, field)
    assert limit in error["message"]


@pytest.mark.fault(128)
def test_a_full_queue(tiny: LoadedModel) -> None:
    """Fault 128: what waits is answered later, what is too much is refused at once."""
    with serving(tiny, limits=dataclasses.replace(LIMITS, queue=2), slots=1) as server:
        server.scheduler.gate.clear()
        with socket.create_connection(("127.0.0.1", server.port)) as first:
            body = json.dumps({"prompt": "a", "n": 2}).encode()
            first.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: server.scheduler.active == 1)
            status, headers, _ = server.request("POST", COMPLETIONS, {"prompt": "a", "n": 2})
            assert (status, "retry-after" in headers) == (429, True)
            server.scheduler.gate.set()
            assert read_all(first).startswith(b"HTTP/1.1 200")


@pytest.mark.fault(129)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves(running: Running, stream: bool) -> None:
    """Fault 129: its text is not continued, whether it is streamed or not."""
    running.scheduler.gate.clear()
    try:
        with socket.create_connection(("127.0.0.1", running.port)) as leaving:
            body = json.dumps({"prompt": "a", "stream": stream}).encode()
            leaving.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: running.scheduler.active == 1)
        wait_until(lambda: running.scheduler.active == 0)
    finally:
        running.scheduler.gate.set()


@pytest.mark.fault(130)
def test_wrong_keys_and_a_server_open_to_all(tiny: LoadedModel, finished: Path, acorn, refused) -> None:
    """Fault 130: without the key only the two routes for monitoring answer; without any key only this machine."""
    with serving(tiny, key=KEY) as server:
        for path in ("/", "/v1/models", "/metrics", "/openapi.json", "/nothing"):
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                assert server.request("GET", path, headers=headers)[0] == 401
        assert server.request("GET", "/health")[0] == server.request("GET", "/ready")[0] == 200
    done = acorn("serve", finished, "--host", "0.0.0.0", "--port", 0)
    refused(done, 2, "--api-key-file", "--host 0.0.0.0")


@pytest.mark.fault(131)
def test_a_signal_lets_texts_end(tiny: LoadedModel) -> None:
    """Fault 131: what runs is finished, what is new gets 503 and when to come again."""
    with serving(tiny) as server:
        server.scheduler.gate.clear()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            body = json.dumps({"prompt": "a", "stream": True}).encode()
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            wait_until(lambda: server.scheduler.active == 1)
            server.server.handle_exit(signal.SIGTERM, None)
            wait_until(lambda: server.server.context.is_draining)
            status, headers, _ = server.request("POST", COMPLETIONS, {"prompt": "b"})
            assert (status, "retry-after" in headers) == (503, True)
            assert server.request("GET", "/ready")[0] == 503
            assert server.request("GET", "/health")[0] == 200
            server.scheduler.gate.set()
            assert b"data: [DONE]" in read_all(client)


@pytest.mark.fault(131)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process(finished: Path, number: signal.Signals) -> None:
    """Fault 131: it ends by itself, with the signal's exit code."""
    command = [sys.executable, "-m", "acorn", "serve", str(finished), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        try:
            for line in process.stderr:
                lines.append(line)
                if "is loaded" in line:
                    break
            url = re.search(r"http://127\.0\.0\.1:\d+/", "".join(lines))
            assert url, lines
            with urllib.request.urlopen(f"{url[0]}ready", timeout=60) as answer:
                assert answer.status == 200
            process.send_signal(number)
            rest = process.stderr.read()
            assert process.wait(60) == 128 + number
            assert "Traceback" not in rest
            assert "acorn: The server has stopped." in rest
        finally:
            process.kill()


@pytest.mark.fault(132)
def test_texts_stay_out_of_logs_and_errors(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 132: no part of a prompt is logged, and an error repeats little of a request."""
    with caplog.at_level(logging.DEBUG):
        running.request("POST", COMPLETIONS, {"prompt": "hidden"})
        _, _, body = running.request("POST", COMPLETIONS, {"prompt": "hidden", "temperature": "hidden" * 10_000})
    assert len(body) < 4096
    assert "hidden" not in caplog.text


@pytest.mark.fault(133)
def test_an_address_that_cannot_be_used(finished: Path, acorn, refused) -> None:
    """Fault 133: a port in use, and an address that is none of this machine's."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(acorn("serve", finished, "--port", port), 2, f"the port {port}", "--port")
    refused(acorn("serve", finished, "--host", "nowhere.invalid:80", "--api-key-file", finished), 2)


@pytest.mark.fault(134)
def test_a_model_that_cannot_be_loaded(acorn, tmp_path: Path) -> None:
    """Fault 134: the server ends, as other commands do with this model."""
    done = acorn("serve", tmp_path / "nothing", "--port", 0)
    assert done.returncode == 2
    assert "  where: " in done.stderr
    assert "Traceback" not in done.stderr
