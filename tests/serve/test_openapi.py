"""The description, and requests that schemathesis makes from it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_servers import KEY, Running, serving

from acorn.checkpoint.load import LoadedModel
from acorn.serve.limits import LIMITS, table
from acorn.tokenizer.template_format import chat_format_of

HEADERS = {"Authorization": f"Bearer {KEY}"}

NOT_CHECKED = "positive_data_acceptance"
"""That a prompt with its new tokens fits the context cannot be said in a schema, so a request that follows it may get
400."""


@pytest.fixture(scope="module")
def locked(watched_run: Path, watched_model: LoadedModel) -> Iterator[Running]:
    """A server with every route but that of label heads."""
    chatting = dataclasses.replace(watched_model, chat_template=chat_format_of(watched_model.tokenizer).template)
    with serving(chatting, key=KEY, slots=16, run=watched_run) as running:
        yield running


def described(running: Running) -> dict:
    return json.loads(running.request("GET", "/openapi.json", headers=HEADERS)[2])


def test_every_route_is_described_and_every_limit_named(locked: Running) -> None:
    found = described(locked)
    assert set(found["paths"]) == {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/tokenize",
        "/v1/detokenize",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/inspect",
        "/v1/lens",
        "/v1/compare",
        "/v1/film",
        "/v1/run",
        "/v1/run/events",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
    }
    for row in table():
        assert row.value in found["info"]["description"]
        assert row.what in found["info"]["description"]
    assert len(table()) == len(dataclasses.fields(LIMITS))
    completion = found["components"]["schemas"]["CompletionRequest"]["properties"]
    assert completion["n"]["anyOf"][0]["maximum"] == LIMITS.n
    for path, methods in found["paths"].items():
        for operation in methods.values():
            assert ("security" in operation and operation["security"] != []) == (path not in ("/health", "/ready"))


def test_routes_that_the_model_does_not_have_are_not_described(faked: Running) -> None:
    assert not {"/v1/film", "/v1/run/events", "/v1/classify"} & described(faked)["paths"].keys()
    assert "/v1/inspect" in described(faked)["paths"]


def test_a_server_without_a_key_asks_for_none(faked: Running) -> None:
    assert not [
        one["get"]["security"] for one in described(faked)["paths"].values() if one.get("get", {}).get("security")
    ]


PAGE = [f"/v1/{name}" for name in ("inspect", "lens", "film", "compare", "run")]
"""These run the model, or load checkpoints, for each request."""

ENDLESS = "/v1/run/events"

INTERFACE = [word for path in (*PAGE, ENDLESS) for word in ("--exclude-path", path)]
OF_THE_PAGE = [word for path in PAGE for word in ("--include-path", path)]


@pytest.mark.parametrize(
    ("routes", "cases"),
    [
        (INTERFACE, 5),
        pytest.param(INTERFACE, 1000, marks=pytest.mark.slow),
        pytest.param(OF_THE_PAGE, 25, marks=pytest.mark.slow),
    ],
    ids=["few", "many", "page"],
)
def test_requests_of_schemathesis(locked: Running, routes: list[str], cases: int, tmp_path: Path) -> None:
    """All phases, valid and invalid data: no server error, no undocumented status, nothing invalid accepted."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{locked.url}/openapi.json"]
    command += ["-H", f"Authorization: Bearer {KEY}", "--mode", "all", "--checks", "all", "--no-shrink"]
    command += ["--exclude-checks", NOT_CHECKED, "--max-examples", str(cases), "--seed", "1", "--no-color"]
    command += routes
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    made = re.search(r"([\d,]+) generated", done.stdout)
    assert made, done.stdout
    assert int(made[1].replace(",", "")) >= (
        500 if routes is INTERFACE else 300
    )  # the phase "coverage" alone makes hundreds
