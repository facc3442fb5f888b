"""The page's routes over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_server import ThreadScheduler, app_for, context_of
from starlette.testclient import TestClient

from acorn.checkpoint.load import LoadedModel, load
from acorn.serve.playground import MEDIA_TYPES, page_files
from acorn.serve.scheduler import NotReadyError, QueueFullError

LIMIT = 80_000
"""Bytes that all files of the page have together at most."""


@pytest.fixture(scope="module")
def scheduler(watched_model: LoadedModel) -> ThreadScheduler:
    return ThreadScheduler(watched_model)


@pytest.fixture(scope="module")
def client(watched_run: Path, scheduler: ThreadScheduler) -> Iterator[TestClient]:
    with TestClient(app_for(context_of(scheduler, watched_run, {"again": watched_run}, max_tokens=500))) as client:
        yield client


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


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


def test_files_of_the_page_are_served_with_a_policy(client: TestClient) -> None:
    for name, body in page_files().items():
        answer = client.get(f"/page/{name}")
        assert answer.content == body
        assert answer.headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        again = client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/").content == page_files()["index.html"]
    assert client.get("/page/../playground.py").status_code == 404


def test_facts(client: TestClient, watched_model: LoadedModel) -> None:
    facts = client.get("/v1/run").json()
    assert facts["model"]["vocab_size"] == watched_model.config.vocab_size
    assert facts["run"]["name"] == "tiny"
    assert facts["runs"] == {"tiny": ["4", "8", "12", "final"], "again": ["4", "8", "12", "final"]}


def test_inspecting_a_checkpoint_gives_other_scores(client: TestClient) -> None:
    body = {"input": "the cat saw", "as": "prompt", "top": 2, "next_top": 3}
    newest = client.post("/v1/inspect", json=body).json()
    oldest = client.post("/v1/inspect", json={**body, "checkpoint": 4}).json()
    assert [token["id"] for token in newest["tokens"]] == [token["id"] for token in oldest["tokens"]]
    assert newest["tokens"][1]["logprob"] != oldest["tokens"][1]["logprob"]
    assert len(newest["next"]["top"]) == 3
    by_ids = client.post("/v1/inspect", json={**body, "input": [token["id"] for token in newest["tokens"]]}).json()
    assert by_ids == newest


def test_a_film_has_a_frame_for_each_checkpoint_and_is_computed_once(
    client: TestClient, scheduler: ThreadScheduler
) -> None:
    first = client.post("/v1/film", json={"prompt": "the cat", "max_tokens": 3})
    assert first.headers["content-type"].startswith("text/event-stream")
    events = events_of(first.text)
    assert [name for name, _ in events] == ["checkpoints", "frame", "frame", "frame", "done"]
    assert [data["checkpoint"] for name, data in events if name == "frame"] == ["4", "8", "12"]
    scheduler.refuse = QueueFullError()
    try:
        assert client.post("/v1/film", json={"prompt": "the cat", "max_tokens": 3}).text == first.text
        other = events_of(client.post("/v1/film", json={"prompt": "the dog"}).text)
    finally:
        scheduler.refuse = None
    assert [name for name, _ in other] == ["checkpoints", "error"]


def test_a_comparison_takes_runs_by_name(client: TestClient, tmp_path: Path, watched_run: Path) -> None:
    body = {"prompt": "the cat", "max_tokens": 2, "seed": 1, "left": {"checkpoint": "4"}}
    found = client.post("/v1/compare", json={**body, "right": {"run": "again", "checkpoint": "final"}})
    assert found.status_code == 200
    assert len(found.json()["sides"]) == 2
    for path in (str(watched_run), str(tmp_path), "../tiny"):
        refused = client.post("/v1/compare", json={**body, "right": {"run": path}})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "run"
    for checkpoint in ("../../tiny/final", "/etc", "4/../8"):
        assert client.post("/v1/compare", json={**body, "right": {"checkpoint": checkpoint}}).status_code == 400


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/v1/inspect", {"input": 5}, "input"),
        ("/v1/inspect", {"input": []}, "input"),
        ("/v1/inspect", {"input": [-1]}, "input"),
        ("/v1/inspect", {"input": [300_000]}, "input"),
        ("/v1/inspect", {"input": [True]}, "input"),
        ("/v1/inspect", {"input": "a", "as": "mail"}, "as"),
        ("/v1/inspect", {"input": "a", "top": 21}, "top"),
        ("/v1/inspect", {"input": "a", "top": 1.5}, "top"),
        ("/v1/inspect", {"input": "a", "next_top": -1}, "next_top"),
        ("/v1/inspect", {"input": "a", "checkpoint": 5}, None),
        ("/v1/inspect", {"input": "\ud800"}, None),
        ("/v1/inspect", {"input": "cat " * 600}, "input"),
        ("/v1/lens", {"input": "cat " * 100}, "input"),
        ("/v1/film", {"prompt": ["a"]}, "input"),
        ("/v1/film", {"prompt": "a", "max_tokens": 65}, "max_tokens"),
        ("/v1/compare", {"prompt": "a"}, "left"),
        ("/v1/compare", {"prompt": "a", "left": {}, "right": {}, "temperature": -1}, "temperature"),
        ("/v1/compare", {"prompt": "a", "left": {}, "right": {}, "seed": "x"}, "seed"),
        ("/v1/inspect", [1], "body"),
    ],
)
def test_wrong_requests_are_refused_by_name(client: TestClient, route: str, body: Any, param: str | None) -> None:
    answer = client.post(route, content=json.dumps(body))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"]
    assert param is None or error["param"] == param


def test_bodies_that_are_no_json_are_refused(client: TestClient) -> None:
    for content in (b"", b"{", b"\xff", b'{"input": NaN}', b"[" * 5000):
        assert client.post("/v1/inspect", content=content).status_code == 400


def test_a_server_that_is_not_ready_says_when_to_come_back(
    watched_run: Path, watched_model: LoadedModel, scheduler: ThreadScheduler, client: TestClient
) -> None:
    loading = ThreadScheduler(watched_model, state="loading")
    with TestClient(app_for(context_of(loading, watched_run))) as early:
        answers = [early.get("/v1/run"), early.post("/v1/inspect", json={"input": "a"})]
        assert early.get("/").status_code == 200
    for error, status in ((NotReadyError(), 503), (QueueFullError(), 429)):
        scheduler.refuse = error
        answers.append(client.post("/v1/inspect", json={"input": "a"}))
        scheduler.refuse = None
        assert answers[-1].status_code == status
    assert [answer.status_code for answer in answers[:2]] == [503, 503]
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)


def test_a_model_outside_of_a_run_has_no_checkpoints(watched_model: LoadedModel) -> None:
    with TestClient(app_for(context_of(ThreadScheduler(watched_model)))) as client:
        assert client.get("/v1/run").json()["run"] is None
        assert client.post("/v1/inspect", json={"input": "the cat"}).status_code == 200
        assert client.post("/v1/film", json={"prompt": "a"}).status_code == 400
        assert client.get("/v1/run/events").status_code == 400


def test_a_replaced_checkpoint_is_filmed_anew(watched_run: Path, tmp_path: Path, watched_model: LoadedModel) -> None:
    import shutil

    run = tmp_path / "tiny"
    shutil.copytree(watched_run, run)
    with TestClient(app_for(context_of(ThreadScheduler(watched_model), run))) as client:
        before = client.post("/v1/film", json={"prompt": "the cat"}).text
        shutil.rmtree(run / "checkpoints" / "step-00000008")
        manifest = run / "checkpoints" / "step-00000004" / "manifest.json"
        os.utime(manifest, (1, 1))
        after = client.post("/v1/film", json={"prompt": "the cat"}).text
    assert [data["checkpoint"] for name, data in events_of(after) if name == "frame"] == ["4", "12"]
    assert set(after.split("\n\n")) - set(before.split("\n\n")) == {'event: checkpoints\ndata: ["4","12"]'}


def test_the_lens_ends_at_the_model_s_own_prediction(client: TestClient, watched_run: Path) -> None:
    found = client.post("/v1/lens", json={"input": "the cat saw", "top": 3}).json()
    inspected = client.post("/v1/inspect", json={"input": "the cat saw", "as": "prompt", "top": 3}).json()
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
