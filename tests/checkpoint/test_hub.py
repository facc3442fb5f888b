"""Models by their name on the Hub, from a Hub of this machine that keeps a list of what it was asked for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from other_models import make_model

from acorn.checkpoint.hub import local_folder, repository_of
from acorn.errors import InputError, UsageError

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """The files of `folder` as the repositories me/model (all of them) and me/pickled (those that are not weights)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.folder = folder
        self.asked: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        names = sorted(path.name for path in self.server.folder.iterdir())
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repository == "me/pickled":
            names = [name for name in names if not name.endswith(".safetensors")]
        headers, status, body = {"X-Repo-Commit": COMMIT}, 200, b""
        if repository not in ("me/model", "me/pickled"):
            status, headers = 404, {"X-Error-Code": "RepoNotFound"}
        elif parts[0] == "api" and "tree" in parts:
            sizes = {name: (self.server.folder / name).stat().st_size for name in names}
            body = json.dumps(
                [{"type": "file", "oid": name, "size": sizes[name], "path": name} for name in names]
            ).encode()
        elif parts[0] == "api":
            siblings = [{"rfilename": name} for name in names]
            body = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
        else:
            self.server.asked.add(parts[-1])
            body = (self.server.folder / parts[-1]).read_bytes()
            headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    make_model(tmp_path / "model", "llama-3")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "model" / "modeling_own.py").write_text("raise SystemExit")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# Model\n")
    server = Hub(tmp_path / "model")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def acorn(hub: Hub, home: Path, *arguments: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    """In a separate process: the library reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline}
    command = [sys.executable, "-m", "acorn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings})


def test_a_model_is_downloaded_once_and_then_available_offline(hub: Hub, tmp_path: Path) -> None:
    wanted = ("generate", "hf:me/model", "--prompt", "The keeper", "--max-new-tokens", "5", "--greedy", "--json")
    done = acorn(hub, tmp_path / "home", *wanted)
    assert done.returncode == 0, done.stderr
    assert hub.asked == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    again = acorn(hub, tmp_path / "home", *wanted, offline="1")
    assert json.loads(again.stdout)["new_ids"] == json.loads(done.stdout)["new_ids"]


@pytest.mark.parametrize(
    ("name", "said", "fix"),
    [("me/none", "does not provide", "auth login"), ("me/pickled", "no safetensors weights", "save_pretrained")],
)
def test_models_that_the_hub_does_not_provide(name: str, said: str, fix: str, hub: Hub, tmp_path: Path) -> None:
    done = acorn(hub, tmp_path / "home", "generate", f"hf:{name}", "--prompt", "a")
    assert done.returncode == 3
    assert said in done.stderr
    assert fix in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_network_the_message_names_a_workaround(hub: Hub, tmp_path: Path) -> None:
    hub.server_close()
    done = acorn(hub, tmp_path / "home", "generate", "hf:me/model", "--prompt", "a")
    assert done.returncode == 3
    assert "The Hub cannot be reached: " in done.stderr
    assert "check the network; or run `hf download" in done.stderr


def test_offline_mode_is_named_in_the_message() -> None:
    """The tests run offline."""
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set, and this machine's cache has no copy\.") as caught:
        local_folder("hf:me/model")
    assert "network" not in str(caught.value)
    assert caught.value.fix.startswith("set HF_HUB_OFFLINE=0")
    assert "hf download" in caught.value.fix


def test_a_folder_in_the_hubs_cache_gives_its_repository(tmp_path: Path) -> None:
    assert repository_of(tmp_path / "models--me--a--b" / "snapshots" / "abc") == ("me/a--b", "abc")
    assert repository_of(tmp_path / "datasets--me--a" / "snapshots" / "abc") == ("", "")
    assert repository_of(tmp_path / "models--me--a" / "abc") == repository_of(tmp_path) == ("", "")


def test_invalid_names_are_refused(tmp_path: Path) -> None:
    assert local_folder(f"hf:{tmp_path}") == local_folder(tmp_path) == tmp_path
    with pytest.raises(UsageError, match="neither a model on the Hub nor an existing folder"):
        local_folder("hf:one/two/three")
