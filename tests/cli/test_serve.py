"""`acorn serve` as a user starts it. What it answers is tested in tests/serve."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from acorn.serve.server import model_name, read_key


def test_without_the_extra_the_message_names_it(acorn, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else found(name, *more)
    )
    done = acorn("serve", run)
    assert done.returncode == 7
    assert "uvicorn" in done.stderr
    assert "'.[serve]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--port", "70000"], "--port"),
        (["--slots", "0"], "--slots"),
        (["--device", "tpu"], "--device"),
        (["--precision", "fp8"], "--precision"),
        (["--api-key-file", "nothing.txt"], "nothing.txt"),
        (["--api-key-file", ""], "--api-key-file"),
        (["--host", "0.0.0.0"], "--api-key-file"),
        (["--host", "::"], "--api-key-file"),
        (["--host", ""], "--host"),
        (["--compare", "nothing_here"], "nothing_here does not exist"),
    ],
)
def test_wrong_options_are_named(acorn, run: Path, options: list[str], told: str) -> None:
    done = acorn("serve", run, *options)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_does_not_exist_is_never_served(acorn) -> None:
    done = acorn("serve", "nothing_here", "--port", 0)
    assert done.returncode == 2
    assert "nothing_here does not exist" in done.stderr
    assert "Serving" not in done.stderr


def test_a_damaged_model_ends_the_server_with_its_code(acorn, run: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(run / "final", tmp_path / "model")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = acorn("serve", copy, "--port", 0)
    assert done.returncode == 4, done.stderr
    assert "model.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_name_of_a_model_is_that_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert model_name(Path(".")) == model_name(tmp_path / "mine") == model_name(Path("../mine/")) == "mine"
    assert model_name("hf:owner/name") == "owner/name"


@pytest.mark.parametrize("text", ["", " \n", "two words", "umlaut-ä", "two\nlines"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    from acorn.errors import UsageError

    path = tmp_path / "key"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError, match="no key"):
        read_key(path)
    path.write_text(" a-key\n")
    assert read_key(path) == "a-key"
