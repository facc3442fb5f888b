"""The page's routes, as the server answers them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_servers import RefusingScheduler, Running, serving, wait_until

from acorn.checkpoint.load import LoadedModel, load
from acorn.errors import UsageError
from acorn.serve.limits import LIMITS
from acorn.serve.page_files import MEDIA_TYPES, page_files
from acorn.serve.scheduler import NotReadyError, QueueFullError, Scheduler

LIMIT = 80_000
"""Bytes that all files of the page have together at most."""

SMALL = dataclasses.replace(LIMITS, inspected_tokens=500, watchers=2)


@pytest.fixture(scope="module")
def server(watched_run: Path, watched_model: LoadedModel, tmp_path_factory: Any) -> Iterator[Running]:
    """A server of a run, which can be compared with itself and with a model folder."""
    model = Path(shutil.copytree(watched_run / "final", tmp_path_factory.mktemp("compared") / "model"))
    more = {"limits": SMALL, "run": watched_run, "compared": (watched_run, model)}
    with serving(watched_model, scheduler=RefusingScheduler, **more) as running:
        yield running


def get(running: Running, path: str) -> Any:
    status, _, body = running.request("GET", path)
    assert status == 200, body
    return json.loads(body)


def post(running: Running, path: str, body: Any) -> Any:
    status, _, found = running.request("POST", path, body)
    assert status == 200, found
    return json.loads(found)


def events_of(body: bytes) -> list[Any]:
    """The objects of a stream, whose last event is `[DONE]`."""
    events = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    return [event if event == "data: [DONE]" else json.loads(event.removeprefix("data: ")) for event in events]


def film(running: Running, **body: Any) -> list[Any]:
    status, headers, found = running.request("POST", "/v1/film", body)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    return events_of(found)


def test_the_page_is_small_and_asks_nobody_else() -> None:
    files = page_files()
    assert sum(map(len, files.values())) < LIMIT
    for name, body in files.items():
        text = body.decode().replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xhtml", "")
        assert "http://" not in text, name
        assert "https://" not in text, name
        for markup in ("innerHTML", "outerHTML =", "insertAdjacentHTML", "document.write", "eval("):
            assert markup not in text, name  # a prompt must not become markup
    html = files["index.html"].decode()
    assert "style=" not in html
    assert "<style" not in html
    assert html.count("<script") == html.count('<script type="module" src="page/')


def test_files_of_the_page_are_served_with_a_policy(server: Running) -> None:
    for name, body in page_files().items():
        status, headers, found = server.request("GET", f"/page/{name}")
        assert (status, found) == (200, body)
        assert headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
        assert headers["content-security-policy"].startswith("default-src 'self';")
        status, _, found = server.request("GET", f"/page/{name}", headers={"If-None-Match": headers["etag"]})
        assert (status, found) == (304, b"")
    assert server.request("GET", "/")[2] == page_files()["index.html"]
    assert server.request("GET", "/page/../playground.py")[0] == 404


def test_facts(server: Running, watched_model: LoadedModel) -> None:
    facts = get(server, "/v1/run")
    assert facts["model"]["vocab_size"] == watched_model.config.vocab_size
    assert facts["run"]["name"] == "tiny"
    assert facts["runs"] == {
        "tiny": ["4", "8", "12", "final"],
        "model": ["final"],
    }


def test_inspecting_a_checkpoint_gives_other_scores(server: Running) -> None:
    body = {"input": "the cat saw", "kind": "prompt", "top": 2, "next_top": 3}
    newest = post(server, "/v1/inspect", body)
    oldest = post(server, "/v1/inspect", {**body, "checkpoint": "4"})
    assert [token["id"] for token in newest["tokens"]] == [token["id"] for token in oldest["tokens"]]
    assert newest["tokens"][1]["logprob"] != oldest["tokens"][1]["logprob"]
    assert len(newest["next"]["top"]) == 3
    assert post(server, "/v1/inspect", {**body, "input": [token["id"] for token in newest["tokens"]]}) == newest
    empty = post(server, "/v1/inspect", {"input": "", "kind": "prompt"})
    assert [token["logprob"] for token in empty["tokens"]] == [None]


def test_a_film_has_a_frame_for_each_checkpoint_and_is_computed_once(server: Running) -> None:
    first = film(server, prompt="the cat", max_tokens=3)
    assert first[0] == {"checkpoints": ["4", "8", "12"]}
    assert [event["frame"]["checkpoint"] for event in first[1:-1]] == ["4", "8", "12"]
    assert first[-1] == "data: [DONE]"
    server.scheduler.refusal = QueueFullError()
    try:
        assert film(server, prompt="the cat", max_tokens=3) == first
        other = film(server, prompt="the dog")
    finally:
        server.scheduler.refusal = None
    assert [list(event) for event in other] == [["checkpoints"], ["error"]]
    assert other[1]["error"]["type"] == "rate_limit_error"


def test_a_comparison_takes_runs_by_name(server: Running, tmp_path: Path, watched_run: Path) -> None:
    body = {"prompt": "the cat", "max_tokens": 2, "seed": 1, "left": {"checkpoint": "4"}}
    assert len(post(server, "/v1/compare", {**body, "right": {"run": "tiny", "checkpoint": "final"}})["sides"]) == 2
    assert post(server, "/v1/compare", {**body, "prompt": "", "right": {"run": "model"}})["same_tokenizer"]
    for path in (str(watched_run), str(tmp_path), "../tiny"):
        status, _, found = server.request("POST", "/v1/compare", {**body, "right": {"run": path}})
        assert (status, json.loads(found)["error"]["param"]) == (400, "right.run")
    for checkpoint in ("../../tiny/final", "/etc", "4/../8", "5"):
        assert server.request("POST", "/v1/compare", {**body, "right": {"checkpoint": checkpoint}})[0] == 400


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/v1/inspect", {"input": 5}, "input"),
        ("/v1/inspect", {"input": []}, "input"),
        ("/v1/inspect", {"input": ""}, "input"),
        ("/v1/inspect", {"input": [-1]}, "input"),
        ("/v1/inspect", {"input": [300_000]}, "input"),
        ("/v1/inspect", {"input": [True]}, "input"),
        ("/v1/inspect", {"input": "a", "kind": "mail"}, "kind"),
        ("/v1/inspect", {"input": "a", "top": 21}, "top"),
        ("/v1/inspect", {"input": "a", "top": 1.5}, "top"),
        ("/v1/inspect", {"input": "a", "next_top": -1}, "next_top"),
        ("/v1/inspect", {"input": "a", "checkpoint": 4}, "checkpoint"),
        ("/v1/inspect", {"input": "a", "checkpoint": "5"}, "checkpoint"),
        ("/v1/inspect", {"input": "\ud800"}, None),
        ("/v1/inspect", {"input": "cat " * 600}, "input"),
        ("/v1/lens", {"input": "cat " * 100}, "input"),
        ("/v1/film", {"prompt": ["a"]}, "prompt"),
        ("/v1/film", {"prompt": "a", "max_tokens": 65}, "max_tokens"),
        ("/v1/film", {"prompt": "cat " * 600}, "prompt"),
        ("/v1/compare", {"prompt": "a"}, "left"),
        ("/v1/compare", {"prompt": "a", "left": {}, "right": []}, "right"),
        ("/v1/compare", {"prompt": "a", "left": {}, "right": {}, "temperature": -1}, "temperature"),
        ("/v1/compare", {"prompt": "a", "left": {}, "right": {}, "seed": "x"}, "seed"),
        ("/v1/inspect", [1], None),
    ],
)
def test_wrong_requests_are_refused_by_name(server: Running, route: str, body: Any, param: str | None) -> None:
    status, _, found = server.request("POST", route, body)
    error = json.loads(found)["error"]
    assert (status, error["param"]) == (400, param)
    assert error["message"]


@pytest.mark.parametrize("query", ["metrics=-1", "samples=x", "metrics=1e5", "samples=", "metrics=" + "9" * 20])
def test_offsets_are_numbers_of_bytes(server: Running, query: str) -> None:
    status, _, found = server.request("GET", f"/v1/run/events?{query}")
    assert (status, json.loads(found)["error"]["param"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize("route", ["/v1/inspect", "/v1/lens", "/v1/film", "/v1/compare"])
def test_bodies_are_read_as_those_of_other_routes(server: Running, route: str) -> None:
    for content in (b"", b"{", b"\xff", b'{"input": NaN}', b"[" * 5000, b'{"input": "a", "input": "b"}'):
        assert server.request("POST", route, content)[0] == 400
    assert server.request("POST", route, b"{}", {"Content-Type": "text/plain"})[0] == 415
    body = {"left": {}, "right": {}, "max_tokens": 1, "input": "a", "speed": 1}
    assert "speed" in server.request("POST", route, body)[1]["x-acorn-ignored"]


def test_a_server_that_is_not_ready_says_when_to_come_back(server: Running) -> None:
    answers = []
    for error, status in ((NotReadyError(), 503), (QueueFullError(), 429)):
        server.scheduler.refusal = error
        answers.append(server.request("POST", "/v1/inspect", {"input": "a"}))
        server.scheduler.refusal = None
        assert answers[-1][0] == status
    server.server.context.is_draining = True
    try:
        answers += [server.request("GET", path) for path in ("/v1/run", "/v1/run/events")]
        answers.append(server.request("POST", "/v1/film", {"prompt": "a"}))
        assert server.request("GET", "/")[0] == 200
    finally:
        server.server.context.is_draining = False
    assert [answer[0] for answer in answers[2:]] == [503, 503, 503]
    assert all(int(answer[1]["retry-after"]) > 0 for answer in answers)


@contextlib.contextmanager
def following(running: Running) -> Iterator[http.client.HTTPResponse]:
    """A page that follows the run, whose stream has begun."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/run/events")
        response = connection.getresponse()
        assert response.status == 200
        assert b"train" in response.readline()
        yield response


def test_only_so_many_pages_follow_a_run_and_one_that_is_closed_counts_no_more(server: Running) -> None:
    with following(server), following(server):
        status, headers, _ = server.request("GET", "/v1/run/events")
        assert (status, headers["retry-after"]) == (429, "1")
    metrics = server.server.context.metrics.cancelled._value
    wait_until(lambda: metrics.get() == 2)
    with following(server):
        pass


def test_a_server_that_stops_ends_the_streams_of_a_run(watched_run: Path, watched_model: LoadedModel) -> None:
    with serving(watched_model, scheduler=Scheduler, run=watched_run) as running, following(running) as response:
        running.server.context.is_draining = True
        assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_model_outside_of_a_run_has_no_checkpoints(real: Running) -> None:
    assert get(real, "/v1/run")["run"] is None
    assert post(real, "/v1/inspect", {"input": "the cat"})["bits_per_byte"] > 0
    for method, path, body in (
        ("POST", "/v1/film", {"prompt": "a"}),
        ("POST", "/v1/inspect", {"checkpoint": "4"}),
        ("POST", "/v1/compare", {"left": {}, "right": {}}),
        ("GET", "/v1/run/events", None),
    ):
        status, _, found = real.request(method, path, body)
        assert (status, json.loads(found)["error"]["code"]) == (400, "no_run")


def test_a_replaced_checkpoint_is_filmed_anew(watched_run: Path, tmp_path: Path, watched_model: LoadedModel) -> None:
    run = Path(shutil.copytree(watched_run, tmp_path / "tiny"))
    with serving(watched_model, scheduler=Scheduler, run=run) as running:
        before = film(running, prompt="the cat")
        shutil.rmtree(run / "checkpoints" / "step-00000008")
        os.utime(run / "checkpoints" / "step-00000004" / "manifest.json", (1, 1))
        after = film(running, prompt="the cat")
    assert after == [{"checkpoints": ["4", "12"]}, before[1], before[3], before[4]]


def test_the_lens_ends_at_the_model_s_own_prediction(server: Running, watched_run: Path) -> None:
    found = post(server, "/v1/lens", {"input": "the cat saw", "top": 3})
    inspected = post(server, "/v1/inspect", {"input": "the cat saw", "kind": "prompt", "top": 3})
    last = found["layers"][-1]["next"]
    for place, token in enumerate(inspected["tokens"][1:]):
        assert [entry[0] for entry in last[place]] == [entry[0] for entry in token["top"]]
        assert [entry[2] for entry in last[place]] == pytest.approx([entry[2] for entry in token["top"]], abs=1e-5)
    loaded = load(watched_run)
    assert len(found["layers"]) == loaded.config.n_layer
    for head in found["layers"][0]["attention"]:
        for place, row in enumerate(head):
            assert sum(row) == pytest.approx(1, abs=0.001 * len(row))
            assert all(weight == 0 for weight in row[place + 1 :])


def test_folders_to_compare_with_are_checked_first(watched_run: Path, tiny: LoadedModel, tmp_path: Path) -> None:
    """Another run of the same name as the served one would hide it."""
    shutil.copytree(watched_run / "final", tmp_path / "tiny")
    for folder, said in (
        (tmp_path / "nothing", "does not exist"),
        (watched_run / "checkpoints" / "step-00000004", "is a checkpoint"),
        (tmp_path / "tiny", "have the name tiny"),
    ):
        with pytest.raises(UsageError, match=said), serving(tiny, run=watched_run, compared=(folder,)):
            pass
