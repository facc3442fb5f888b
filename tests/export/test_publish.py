"""Publishing speaks the Hub's own protocol, here with a server of this machine that keeps what it is sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from acorn.errors import ResourceError, UsageError
from acorn.export.publish import check_login, publish


class Hub(ThreadingHTTPServer):
    """The part of the Hub's API that an upload needs.

    Attributes:
        token: the one that it knows.
        may_write: whether its owner may write to OWNER/NAME.
        repositories: what was made, with the request.
        files: what was committed.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.may_write, self.broken = "hf_good", True, False
        self.repositories: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") != "chunked":
            self.answer(self.rfile.read(int(self.headers.get("content-length") or 0)))
            return
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.answer(body)

    def answer(self, body: bytes) -> None:
        status, answer = self.reply(body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def reply(self, body: bytes) -> tuple[int, dict[str, Any]]:
        hub = self.server
        if self.headers.get("authorization") != f"Bearer {hub.token}":
            return 401, {"error": "Invalid username or password."}
        if self.path == "/api/whoami-v2":
            return 200, {"name": "owner"}
        if hub.broken:
            return 418, {"error": "I am a teapot."}
        if not hub.may_write:
            return 403, {"error": "You have read access only."}
        if self.path == "/api/repos/create":
            hub.repositories.append(json.loads(body))
            return 200, {"url": f"{hub.address}/owner/name"}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{hub.address}/owner/name/commit/0"}
        return 200, {}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", server.token)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "README.md").write_text("# A card")
    (path / ".DS_Store").write_text("what a desktop adds")
    return path


@pytest.mark.parametrize("private", [False, True])
def test_the_uploaded_files_equal_the_local_ones(hub: Hub, model: Path, private: bool) -> None:
    check_login("owner/name")
    assert not hub.repositories
    assert publish(model, "owner/name", private=private) == f"{hub.address}/owner/name"
    [made] = hub.repositories
    assert (made["organization"], made["name"]) == ("owner", "name")
    assert (made.get("visibility") == "private" or made.get("private") is True) == private
    assert hub.files == {"config.json": b"{}", "README.md": b"# A card"}


@pytest.mark.parametrize("place", ["home", "current"])
def test_a_card_with_a_path_of_this_machine_is_not_published(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Cards of some other programs contain such paths."""
    (tmp_path / "jane").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "jane") if place == "home" else "/")
    if place == "current":
        monkeypatch.chdir(tmp_path / "jane")
    (model / "README.md").write_text(f"---\nbase_model: {tmp_path}/jane/models/x\n---\n# A card")
    with pytest.raises(UsageError, match="contains a path of this machine: base_model: ") as caught:
        publish(model, "owner/name")
    assert caught.value.where.endswith("README.md, line 2")
    assert not hub.repositories
    assert not hub.files


def test_a_missing_login_is_reported_before_the_export(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert not huggingface_hub.get_token()
    with pytest.raises(UsageError, match="not logged in") as caught:
        check_login("owner/name")
    assert "hf auth login" in caught.value.fix
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UsageError, match=r"does not accept your token \(401\)"):
        check_login("owner/name")


def test_a_refusal_by_the_hub_gives_a_clear_message(hub: Hub, model: Path) -> None:
    hub.may_write = False
    with pytest.raises(UsageError, match=r"has no permission to write to owner/name \(403\)"):
        publish(model, "owner/name")
    hub.broken = True
    with pytest.raises(ResourceError, match="418"):
        publish(model, "owner/name")
    assert not hub.files


def test_a_missing_network_gives_a_clear_message(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ResourceError, match="cannot be reached"):
        check_login("owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        check_login("owner/name")


@pytest.mark.parametrize("name", ["name", "a/b/c", "owner/", "own er/name"])
def test_invalid_repository_names_are_refused_before_any_request(name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a repository"):
        check_login(name)
