"""Bytes on sockets: limits of size and time, and what is left of a connection after them."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_servers import Running, read_all, serving, wait_until

from acorn.checkpoint.load import LoadedModel
from acorn.serve.limits import LIMITS

HEAD = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"input": "The old oak"}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def hasty(tiny: LoadedModel) -> Iterator[Running]:
    """A server with short deadlines and small limits."""
    limits = dataclasses.replace(
        LIMITS, request_seconds=0.2, keep_alive_seconds=0.2, write_seconds=0.3, body_bytes=2000, connections=20
    )
    with serving(tiny, limits=limits) as running:
        yield running


def answer(response: bytes) -> tuple[int, dict]:
    """The status and the JSON of a response."""
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_connection_serves_several_requests(faked: Running) -> None:
    last = WHOLE.replace(b"Host", b"Connection: close\r\nHost")
    response = faked.exchange(WHOLE + WHOLE + last)
    assert response.count(b"HTTP/1.1 200") == 3
    assert response.count(b'"count":') == 3


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        HEAD,
        HEAD + b"Content-Length: 20\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        WHOLE + b"POST",
        WHOLE + HEAD + b"Content-Length: 20\r\n\r\n{",
    ],
)
def test_a_request_that_is_not_whole_in_time_is_refused_and_closed(hasty: Running, sent: bytes) -> None:
    response = hasty.exchange(sent)
    last = response[response.rindex(b"HTTP/1.1 ") :]
    if sent == WHOLE + b"POST":  # nothing of the next request is known yet: the connection counts as idle
        assert response.count(b"HTTP/1.1 ") == 1 or answer(last)[0] == 408
        return
    status, error = answer(last)
    assert status == 408
    assert error["error"]["code"] == "request_timeout"


def test_bytes_that_trickle_do_not_move_the_deadline(hasty: Running) -> None:
    """Each byte comes long before the deadline, the whole request would come long after it."""
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=0.02) as connection:
        received = b""
        for number in range(10_000):
            connection.sendall(b"P" if number == 0 else b"O")
            try:
                received = connection.recv(1000)
                break
            except TimeoutError:
                continue
    assert b" 408 " in received


def test_the_next_request_has_a_deadline_from_its_first_byte(hasty: Running) -> None:
    """Its head is not whole, so that nothing but the deadline ends the connection."""
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=30) as connection:
        connection.sendall(WHOLE)
        received = b""
        while b'"count":' not in received:
            received += connection.recv(1000)
        connection.sendall(b"POST /v1/tok")
        rest = read_all(connection)
    assert b" 408 " in rest


def test_a_connection_that_sends_nothing_is_closed(hasty: Running) -> None:
    assert hasty.exchange(b"") == b""
    response = hasty.exchange(WHOLE)
    assert answer(response)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Content-Length: 2001\r\n\r\n", 413),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b" " * 0x400) * 2, 413),
        (HEAD + b"X: " + b"x" * 17_000 + b"\r\n\r\n", 431),
        (HEAD + b"".join(b"X%d: %b\r\n" % (n, b"x" * 1000) for n in range(17)) + b"\r\n", 431),
        (b"GET /" + b"x" * 17_000, 431),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (HEAD.replace(b"Host: localhost\r\n", b"") + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ],
)
def test_bytes_that_are_no_request_get_an_error_in_json(hasty: Running, sent: bytes, status: int) -> None:
    found, error = answer(hasty.exchange(sent))
    assert found == status
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert len(json.dumps(error)) < 4096


def test_a_head_of_just_the_limit_is_taken(faked: Running) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: %b\r\n\r\n"
    fill = 16 * 1024 - len(head) + len(b"%b")
    assert b" 200 " in faked.exchange(head % (b"x" * fill))
    assert b" 431 " in faked.exchange(head % (b"x" * (fill + 1)))


def test_a_body_of_just_the_limit_is_taken(hasty: Running) -> None:
    body = BODY.ljust(2000)
    assert hasty.request("POST", "/v1/tokenize", body)[0] == 200
    assert hasty.request("POST", "/v1/tokenize", body + b" ")[0] == 413


def test_the_error_arrives_although_the_client_goes_on_sending(hasty: Running) -> None:
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=30) as connection:
        connection.sendall(HEAD + b"Content-Length: 300000\r\n\r\n" + b" " * 100_000)
        assert answer(read_all(connection))[0] == 413


def test_too_many_connections_get_an_error(tiny: LoadedModel) -> None:
    """The deadlines are the usual ones, so that no connection ends before the last one is open."""
    limit = 20
    with serving(tiny, limits=dataclasses.replace(LIMITS, connections=limit)) as running:
        connections = running.server.server_state.connections
        wait_until(lambda: not connections)
        held = [socket.create_connection(("127.0.0.1", running.port), timeout=30) for _ in range(limit)]
        try:
            wait_until(lambda: len(connections) == limit)
            response = running.exchange(b"")
            status, error = answer(response)
            assert (status, error["error"]["code"]) == (429, "too_many_connections")
            assert b"retry-after: " in response.lower()
        finally:
            for connection in held:
                connection.close()
        wait_until(lambda: not connections)
        assert running.request("GET", "/health")[0] == 200


def test_a_client_that_does_not_read_is_cut_off_and_its_text_ends(tiny: LoadedModel) -> None:
    """The engine goes on for others meanwhile: nothing waits for the reader."""
    limits = dataclasses.replace(LIMITS, write_seconds=0.3)
    with serving(tiny, limits=limits) as running:
        body = json.dumps({"prompt": "a", "max_tokens": 60, "stream": True, "n": 100, "logprobs": 20}).encode()
        head = HEAD.replace(b"tokenize", b"completions") + b"Content-Length: %d\r\n\r\n" % len(body)
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", running.port))
        with stuck:
            stuck.sendall(head + body)
            wait_until(lambda: running.server.context.answers == 1)
            assert running.request("POST", "/v1/completions", {"prompt": "b"})[0] == 200
            wait_until(lambda: running.server.context.answers == 0)
            wait_until(lambda: not running.server.server_state.connections)
            assert len(read_all(stuck)) < 10_000_000
        wait_until(lambda: running.scheduler.active + running.scheduler.waiting == 0)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.sampled_from([*WHOLE.split(b"\r\n"), b"\r\n", b"\x00", b"0", b"Transfer-Encoding: chunked"])).map(
            b"\r\n".join
        ),
        st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(max_size=4)).map(
            lambda change: WHOLE[: change[0]] + change[1] + WHOLE[change[0] + 1 :]
        ),
    )
)
@settings(max_examples=40)
def test_any_bytes_are_answered_or_closed_and_never_500(hasty: Running, sent: bytes) -> None:
    response = hasty.exchange(sent)
    assert not response or response.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in response
    assert hasty.request("GET", "/health")[0] == 200
