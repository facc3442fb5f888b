"""What happens around the answers: clients that leave, a full queue, loading, errors, figures and logs."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_servers import Running, serving, wait_until

from acorn.checkpoint.load import LoadedModel
from acorn.errors import DamageError
from acorn.generate.job import Update
from acorn.serve.limits import LIMITS

PROMPT = "a secret prompt"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/health", 405),
        ("POST", "/v1/models", 405),
        ("BREW", "/nothing", 404),
        ("GET", "/v1/completions/", 404),
    ],
)
def test_errors_of_routes_have_the_form_of_others(faked: Running, method: str, path: str, status: int) -> None:
    found, headers, body = faked.request(method, path)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert ("allow" in headers) == (status == 405)


def test_another_media_type_is_refused(faked: Running) -> None:
    for kind, status in (("text/plain", 415), ("application/json; charset=utf-8", 200), ("application/jsonl", 415)):
        assert faked.request("POST", "/v1/tokenize", {"input": "a"}, {"Content-Type": kind})[0] == status


def test_an_error_repeats_little_of_a_long_request(faked: Running) -> None:
    for field in ("temperature", "model", "stop", "prompt", "logit_bias"):
        body = {"prompt": PROMPT, field: "x" * 100_000 if field != "prompt" else {"y" * 100_000: 1}}
        status, _, answer = faked.request("POST", "/v1/completions", body)
        assert status in (400, 404)
        assert len(answer) < 4096


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_the_text_of_a_client_that_left_ends(faked: Running, stream: bool, path: str) -> None:
    scheduler = faked.scheduler
    scheduler.gate.clear()
    before = scheduler.cancelled
    text = {"prompt": PROMPT} if path == "/v1/completions" else {"messages": [{"role": "user", "content": PROMPT}]}
    body = json.dumps({**text, "max_tokens": 30, "n": 3, "stream": stream}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", faked.port)) as connection:
            connection.sendall(head.encode() + body)
            wait_until(lambda: scheduler.active == 3)
        wait_until(lambda: scheduler.active == 0)
        assert scheduler.cancelled == before + 3
        wait_until(lambda: faked.server.context.answers == 0)
    finally:
        scheduler.gate.set()


def test_a_full_queue_is_429_and_says_when_to_come_again(tiny: LoadedModel) -> None:
    with serving(tiny, limits=dataclasses.replace(LIMITS, queue=4), slots=2) as running:
        running.scheduler.gate.clear()
        with ThreadPoolExecutor() as pool:
            taken = pool.submit(running.request, "POST", "/v1/completions", {"prompt": "a", "n": 4})
            wait_until(lambda: running.scheduler.active == 2)
            status, headers, body = running.request("POST", "/v1/completions", {"prompt": "b", "n": 3})
            assert status == 429
            assert int(headers["retry-after"]) >= 1
            assert json.loads(body)["error"]["type"] == "rate_limit_error"
            assert running.request("GET", "/health")[0] == 200
            running.scheduler.gate.set()
            assert taken.result()[0] == 200


def test_while_the_model_is_loaded_nothing_is_taken(tiny: LoadedModel) -> None:
    may_load = threading.Event()

    def load() -> LoadedModel:
        assert may_load.wait(60)
        return tiny

    with serving(tiny, load=load, wait=False) as running:
        assert running.request("GET", "/health")[0] == 200
        for method, path, body in (
            ("GET", "/ready", None),
            ("GET", "/v1/models", None),
            ("POST", "/v1/completions", {"prompt": "a"}),
            ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
            ("POST", "/v1/tokenize", {"input": "a"}),
            ("POST", "/v1/detokenize", {"ids": [1]}),
            ("POST", "/v1/classify", {"input": "a"}),
        ):
            status, headers, _ = running.request(method, path, body)
            assert (status, "retry-after" in headers) == (503, True), path
        may_load.set()
        wait_until(lambda: running.request("GET", "/ready")[0] == 200)
        assert running.request("POST", "/v1/completions", {"prompt": "a"})[0] == 200


def test_a_model_without_a_template_continues_text_only(tiny: LoadedModel) -> None:
    with serving(dataclasses.replace(tiny, chat_template="")) as running:
        body = {"messages": [{"role": "user", "content": "a"}]}
        status, _, answer = running.request("POST", "/v1/chat/completions", body)
        assert status == 400
        assert "/v1/completions" in json.loads(answer)["error"]["message"]
        assert running.request("POST", "/v1/completions", {"prompt": "a"})[0] == 200


@pytest.mark.parametrize("error", [DamageError("The logits are not finite.", fix="verify"), None])
def test_an_error_of_the_engine_ends_a_stream_without_done(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, error: DamageError | None
) -> None:
    with serving(tiny) as running:
        scheduler = running.scheduler
        plain = scheduler._step

        def step(text):
            if len(text.ids) < 3:
                return plain(text)
            return Update(error=error) if error else Update(token=3, prompt_scores=None, text=None)  # type: ignore[arg-type]

        monkeypatch.setattr(scheduler, "_step", step)
        body = {"prompt": "a", "stream": True, "seed": 1}
        with pytest.raises(Exception, match="finite" if error else "log says why"):
            list(running.client().completions.create(model="tiny", prompt="a", stream=True, seed=1))
        status, _, answer = running.request("POST", "/v1/completions", body)
        assert status == 200
        assert b"[DONE]" not in answer
        last = json.loads(answer.strip().rpartition(b"data: ")[2])
        assert last["error"]["type"] == "server_error"
        status, _, answer = running.request("POST", "/v1/completions", {**body, "stream": False})
        assert status == 500
        assert json.loads(answer)["error"]["message"] == last["error"]["message"]


def test_a_stream_is_ascii_events_without_ids(faked: Running) -> None:
    status, headers, body = faked.request(
        "POST", "/v1/completions", {"prompt": "Việt", "echo": True, "stream": True, "max_tokens": 40}
    )
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    assert body.isascii()
    events = body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks).startswith("Việt")


def test_figures_count_tokens_requests_and_refusals(tiny: LoadedModel) -> None:
    with serving(tiny) as running:
        usage = running.client().completions.create(model="tiny", prompt=PROMPT, n=2, max_tokens=7).usage
        running.request("POST", "/v1/completions", {"prompt": 1})
        running.request("POST", "/x/" + "y" * 100)
        status, headers, body = running.request("GET", "/metrics")
        figures = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert float(figures["acorn_prompt_tokens_total"]) == usage.prompt_tokens
    assert float(figures["acorn_completion_tokens_total"]) == usage.completion_tokens
    assert float(figures["acorn_time_to_first_token_seconds_count"]) == 2
    assert float(figures["acorn_time_between_tokens_seconds_count"]) == usage.completion_tokens - 2
    assert float(figures['acorn_refusals_total{code="invalid_value",status="400"}']) == 1
    assert float(figures['acorn_requests_total{method="POST",route="/v1/completions",status="200"}']) == 1
    assert float(figures['acorn_requests_total{method="POST",route="(unknown)",status="404"}']) == 1
    assert float(figures["acorn_queue_length"]) == 0
    assert float(figures["acorn_slots"]) == 4
    assert "yyy" not in body.decode()


def test_the_log_has_a_line_for_each_request_and_no_text(faked: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "acorn.serve"):
        faked.request("POST", "/v1/completions?text=hidden", {"prompt": PROMPT}, {"Authorization": "Bearer hidden"})
        faked.request("POST", "/v1/completions", {"prompt": PROMPT, "n": "hidden"})
        _, headers, _ = faked.request("GET", "/hidden")
        faked.exchange(b"hidden\r\n\r\n")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "acorn.serve.access"]
    assert [line["status"] for line in lines] == [200, 400, 404, 400]
    assert [line["route"] for line in lines] == ["/v1/completions"] * 2 + ["(unknown)"] * 2
    assert lines[0]["prompt_tokens"] > 0
    assert lines[0]["completion_tokens"] > 0
    assert lines[0]["seconds"] >= 0
    assert lines[2]["request_id"] == headers["x-request-id"]
    assert "secret" not in caplog.text
    assert "hidden" not in caplog.text


def test_tokens_and_back(faked: Running) -> None:
    text = "Việt Nam, 橡树 <|endoftext|>\n"
    status, _, body = faked.request("POST", "/v1/tokenize", {"text": text})
    found = json.loads(body)
    assert status == 200
    assert found["ids"] == faked.loaded.tokenizer.encode_prompt(text)
    assert found["count"] == len(found["ids"]) == len(found["pieces"])
    start = len(faked.loaded.tokenizer.prompt_start)
    assert b"".join(map(bytes, found["bytes"][start:])).decode() == text
    _, _, body = faked.request("POST", "/v1/detokenize", {"tokens": found["ids"][start:]})
    assert json.loads(body)["text"] == text
    for wrong in ({}, {"ids": [1], "tokens": [1]}, {"ids": [10**6]}, {"ids": [True]}, {"ids": "a"}):
        assert faked.request("POST", "/v1/detokenize", wrong)[0] == 400
    for wrong in ({}, {"input": "a", "text": "a"}, {"input": ["a"]}):
        assert faked.request("POST", "/v1/tokenize", wrong)[0] == 400
    status, _, body = faked.request("POST", "/v1/tokenize", {"input": "\x7f" * (LIMITS.tokenized + 1)})
    assert status == 400
    assert f"{LIMITS.tokenized:,}" in json.loads(body)["error"]["message"]


def test_many_clients_at_once_get_their_own_texts(real: Running) -> None:
    """Each text is that of the same request alone."""

    def text(seed: int, **more: object) -> bytes:
        body = {"prompt": f"number {seed}", "seed": seed, "max_tokens": 20, **more}
        _, _, answer = real.request("POST", "/v1/completions", body)
        return json.loads(answer)["choices"][0]["text"]

    alone = [text(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(text, range(6))) == alone
    assert len(set(alone)) > 1
