"""What servers endure, in short form: seconds each, with the same checks as the full forms."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from torture import calls, web
from torture.same_bytes import joined

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="servers are forked, and measured in /proc")

SCRIPT = """
import json, sys
from pathlib import Path
from torture import clients_gone, hostile_bodies, overload, raw_requests, same_bytes, server_stops, slow_clients
from torture.served import import_server

import_server()
folder = Path(sys.argv[1])
hasty = {"request_seconds": 1, "keep_alive_seconds": 1}
found = {
    "same bytes": same_bytes.same_bytes(folder / "same", 100),
    "raw requests": raw_requests.raw_requests(folder / "raw", 200, limits=hasty, together=100),
    "hostile bodies": hostile_bodies.hostile_bodies(folder / "hostile", 60),
    "clients gone": clients_gone.clients_gone(folder / "gone", 40),
    "server stops": server_stops.server_stops(folder / "stops", 3),
    "stuck readers": slow_clients.stuck_readers(folder / "stuck", 12, phases=1, seconds=0.3, lowest_ratio=0),
    "slow senders": slow_clients.slow_senders(folder / "slow", 40, request_seconds=0.5),
    "overload": overload.overload(folder / "overload", 2.0, queue=8),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each, in a separate process, because it forks and this one has threads."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("servers"))]
    done = subprocess.run(command, capture_output=True, text=True, env=calls.environment(), timeout=900)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


PARTS = (
    "same bytes",
    "raw requests",
    "hostile bodies",
    "clients gone",
    "server stops",
    "stuck readers",
    "slow senders",
    "overload",
)


@pytest.mark.parametrize("part", PARTS)
def test_a_server_endures_it(found: dict[str, Any], part: str) -> None:
    assert found[part]["broken"] == []


def test_the_attempts_were_made(found: dict[str, Any]) -> None:
    """What came of them shows that they reached the server."""
    assert found["same bytes"]["counts"]["streamed"] > 20
    assert {"200", "400"} <= set(found["raw requests"]["by_status"])
    assert found["hostile bodies"]["by_status"]["200"] > 0
    assert len(found["clients gone"]["left"]) == 3
    assert found["server stops"]["finished"] >= 12
    assert found["server stops"]["refused"] == 9
    assert set(found["slow senders"]["by_status"]) == {"408"}
    assert found["overload"]["by_status"]["429"] > 0


def test_responses_are_told_from_what_is_none() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    parts = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert [one.body for one in web.replies(whole + parts + whole)] == [b"{}"] * 3
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert [one.body for one in web.replies(head + whole)] == [b"", b"{}"]
    for wrong, why in (
        (whole[:-1], "1 of 2 bytes"),
        (parts[:-4], "a body in chunks was cut off"),
        (b"x" + whole, "no response"),
        (b"HTTP/1.1 200 OK\r\n", "no whole head"),
    ):
        with pytest.raises(ValueError, match=why):
            web.replies(wrong)


def test_a_stream_put_together_is_a_whole_response() -> None:
    logprobs = {"tokens": ["a"], "text_offset": [0]}
    events = [
        {"choices": [{"index": 1, "text": "x", "logprobs": logprobs, "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "y", "logprobs": None, "finish_reason": "stop"}]},
        {"choices": [{"index": 1, "text": "z", "logprobs": logprobs, "finish_reason": "length"}]},
        {"choices": []},
    ]
    doubled = {"tokens": ["a", "a"], "text_offset": [0, 0]}
    assert joined(events) == [
        {"index": 0, "text": "y", "logprobs": None, "finish_reason": "stop"},
        {"index": 1, "text": "xz", "logprobs": doubled, "finish_reason": "length"},
    ]
