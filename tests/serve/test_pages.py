"""The page about serving, and the files for operating a server."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_servers import Running

from acorn.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
EXAMPLES = ROOT / "examples" / "serving"


def test_the_python_of_the_page_works(real: Running, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the same text twice: as a whole and as a stream."""
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    exec(code.replace("http://127.0.0.1:8000", real.url).replace('model="mine"', 'model="tiny"'), {})
    printed = capsys.readouterr().out
    half = len(printed) // 2
    assert printed[:half] == printed[half + 1 :]
    assert printed[half] == "\n"


def test_the_request_of_the_page_works(real: Running) -> None:
    [command] = re.findall(r"^```sh\n(curl.*?)^```$", PAGE, re.M | re.S)
    words = shlex.split(command.replace("\\\n", " "))
    status, _, body = real.request("POST", "/v1/completions", words[words.index("-d") + 1].encode())
    assert status == 200
    assert json.loads(body)["choices"]


def test_the_error_of_the_page_is_what_the_server_says(real: Running) -> None:
    [error] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
    _, _, body = real.request("POST", "/v1/completions", {"prompt": "a", "n": 1000})
    assert json.loads(body) == json.loads(error)


def test_the_routes_of_both_pages_are_those_of_the_description(real: Running) -> None:
    described = json.loads(real.request("GET", "/openapi.json")[2])["paths"]
    playground = (ROOT / "docs" / "playground.md").read_text("utf-8")
    named = set(re.findall(r"`(?:POST|GET) (/[^`]+)`", PAGE + playground))
    assert named == set(described) - {"/v1/models/{name}"} | {"/v1/classify", "/v1/film", "/v1/run/events"}


def options_of_serve() -> set[str]:
    import typer

    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in parameter.opts}


def test_the_unit_runs_acorn_serve_and_lets_texts_end() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((EXAMPLES / "acorn.service").read_text())
    service = unit["Service"]
    words = shlex.split(service["ExecStart"])
    assert words[0].endswith("/acorn")
    assert words[1] == "serve"
    assert {word for word in words if word.startswith("--")} <= options_of_serve()
    assert float(service["TimeoutStopSec"]) > 30
    assert service["SuccessExitStatus"] == "143"


def test_the_container_starts_acorn_itself() -> None:
    """In exec form, so that signals reach it; not as root; with a key, since it listens at every address."""
    lines = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]
    commands = dict(steps)
    words = json.loads(commands["ENTRYPOINT"])
    assert words[:2] == ["acorn", "serve"]
    assert {word for word in words if word.startswith("--")} <= options_of_serve()
    assert "--api-key-file" in words
    assert commands["USER"] not in ("root", "0")
    for name, rest in steps:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    assert {name for name, _ in steps} <= {
        "FROM",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "EXPOSE",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }


def test_nginx_passes_on_what_acorn_checks_and_streams() -> None:
    text = re.sub(r"#.*", "", (EXAMPLES / "nginx.conf").read_text())
    assert text.count("{") == text.count("}")
    for statement in re.sub(r"[{}]", ";", text).split(";"):
        assert re.fullmatch(r"\s*|\s*[a-z_]+( [^\s;]+)*\s*", statement), statement
    assert "proxy_set_header Host $host;" in text
    assert "proxy_buffering off;" in text
