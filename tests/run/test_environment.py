"""What environment.json says about acorn and the user's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from acorn import __version__
from acorn.config import TrainConfig
from acorn.run import environment
from acorn.run.environment import changed_since, describe_environment, with_the_start
from acorn.run.resolve import choose_runtime
from acorn.runtime.device import Runtime


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a commit")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch):
    runtime = choose_runtime(TrainConfig(device="cpu", precision="fp32", threads=1))
    monkeypatch.setattr(environment, "parts_in_c", lambda runtime: [])
    return lambda: describe_environment(runtime, "acorn pretrain")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a small package that stands in for acorn's own."""
    package = tmp_path / "acorn" / "src" / "acorn"
    (package / "train").mkdir(parents=True)
    for name in ("__init__.py", "train/step.py", "train/step.c"):
        (package / name).write_text(f"code of {name}\n")
    (tmp_path / "acorn" / "README.md").write_text("about it\n")
    monkeypatch.setattr(environment, "PACKAGE", package)
    return tmp_path / "acorn"


def test_the_commits_of_acorn_and_of_the_users_folder_are_separate(
    checkout: Path, tmp_path: Path, describe, monkeypatch
) -> None:
    own = tmp_path / "mine"
    (own / "below").mkdir(parents=True)
    (own / "notes").write_text("notes\n")
    theirs, mine = commit_all(checkout), commit_all(own)
    monkeypatch.chdir(own / "below")
    found = describe()
    assert (found["acorn"], found["acorn_commit"]) == (metadata.version("acorn-lm"), theirs)
    assert (found["git_revision"], Path(found["git_folder"])) == (mine, own.resolve())
    assert __version__ == metadata.version("acorn-lm")
    (own / "notes").write_text("other notes\n")
    found = describe()
    assert (found["acorn_commit"], found["git_revision"]) == (theirs, mine + "+")


def test_only_changes_of_acorns_own_code_mark_its_commit(checkout: Path, describe) -> None:
    commit = commit_all(checkout)
    (checkout / "README.md").write_text("more about it\n")
    assert describe()["acorn_commit"] == commit
    (checkout / "src" / "acorn" / "train" / "new.py").write_text("new\n")
    assert describe()["acorn_commit"] == commit + "+"


def test_an_installed_acorn_does_not_get_the_commit_of_the_folder_around_it(
    checkout: Path, describe, monkeypatch
) -> None:
    """For example in a .venv inside the user's checkout, where git does not track the installed files."""
    (checkout / ".gitignore").write_text("src\n")
    commit_all(checkout)
    noted: dict[str, object] = {}
    distribution = SimpleNamespace(
        version="1", read_text=lambda name: json.dumps(noted) if name == "direct_url.json" else None
    )
    monkeypatch.setattr(environment.metadata, "distribution", lambda name: distribution)
    assert describe()["acorn_commit"] is None
    noted |= {"url": "https://example.org/acorn.git", "vcs_info": {"vcs": "git", "commit_id": "0123abcd"}}
    assert describe()["acorn_commit"] == "0123abcd"


@pytest.mark.parametrize("name", ["train/step.py", "train/step.c"])
def test_bit_identity_depends_on_the_code_not_the_commit(checkout: Path, describe, monkeypatch, name: str) -> None:
    """A commit may change no code, and code may change without a commit."""
    before = describe()
    commit_all(checkout)
    assert changed_since(before, describe()) == []
    shutil.copytree(checkout, checkout.parent / "copy")
    copy = checkout.parent / "copy" / "src" / "acorn"
    monkeypatch.setattr(environment, "PACKAGE", copy)
    assert changed_since(before, describe()) == []
    (copy / name).write_text("other code\n")
    (line,) = changed_since(before, describe())
    assert line.startswith(f"acorn_source: {before['acorn_source']} then, ")


def test_a_checkpoint_of_an_earlier_version_has_no_digest_to_compare(describe) -> None:
    now = describe()
    stored = {key: value for key, value in now.items() if key != "acorn_source"}
    assert changed_since(stored, now) == []


def test_a_resumed_run_says_that_its_c_code_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime("cpu", "fp32", False, 2, True)
    monkeypatch.setattr(environment, "parts_in_c", lambda runtime: ["loss", "blocks"])
    then = environment.describe_environment(runtime, "")
    monkeypatch.setattr(environment, "parts_in_c", lambda runtime: [])
    now = environment.describe_environment(runtime, "")
    assert environment.changed_since(then, now) == ["native: loss, blocks then, nothing now"]


def test_a_resumed_run_keeps_the_reasons_for_its_choices() -> None:
    start = {
        "choices": ["device cpu: no GPU found", "threads 2: one for each core"],
        "command_line": "acorn pretrain a",
    }
    now = {"choices": ["device cpu: as asked", "threads 4: as asked"], "command_line": "acorn pretrain --resume"}
    again = with_the_start(now, start)
    assert again["choices"] == ["device cpu: no GPU found", "threads 4: as asked"]  # the number of threads was changed
    assert again["first_command_line"] == "acorn pretrain a"
    assert again["command_line"] == "acorn pretrain --resume"
    assert with_the_start(now | {"command_line": "acorn third"}, again)["first_command_line"] == "acorn pretrain a"
    assert with_the_start(now, {"choices": 3})["choices"] == now["choices"]
