"""Arguments that are empty, or not UTF-8: Python passes those on with lone surrogates."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

import acorn as api
from acorn.cli.app import app
from acorn.errors import UsageError

NAME = "caf\udce9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with such a name."""
    path = tmp_path / NAME
    try:
        path.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system has UTF-8 names alone")
    return path


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    "command",
    [
        "pretrain small data.source={text} --out {bad}",
        "pretrain --resume --out={bad}",
        "pretrain {bad}.toml",
        "pretrain small data.source={bad}.txt",
        "demo --out {bad}",
        "plan {bad}.toml",
        "data prepare --tokenizer {run}/tokenizer.json --input {text} --out {bad}",
        "data prepare --tokenizer {bad}.json --input {text} --out new",
        "data verify {bad}",
        "tokenizer train --vocab-size 300 --input {text} --out {bad}.json",
        "tokenizer inspect {bad}.json",
        "evaluate {bad}",
        "evaluate {run} --input {bad}.txt",
        "generate {bad} --prompt x",
        "verify {bad}",
        "report {bad}",
        "export {run} --format hf --out {bad}",
        "sweep small data.source={text} train.seed=[0,1] --out {bad}",
    ],
)
def test_a_name_that_is_not_utf8_is_refused_at_once(acorn, run: Path, text_file: Path, tmp_path, command: str) -> None:
    """Fault 47: in every command, before anything is read or written."""
    words = [word.format(bad=NAME, run=run, text=text_file) for word in command.split()]
    done = acorn(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "not Unicode text" in done.stderr
    assert r"caf\udce9" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(47)
def test_commands_in_a_folder_whose_name_is_not_utf8(acorn, run: Path, text_file: Path, settings, folder: Path) -> None:
    """Fault 47: all paths in it are like that. No model is written there; reading and other commands work."""
    named = (f"data.source={text_file}", "--out", "run")
    training = (("pretrain", "small", *named), ("sweep", "small", *named, "train.seed=[0,1]", "train.steps=1"))
    exports = (("export", run, "--format", format, "--out", "model") for format in ("hf", "gguf"))
    for command in (*training, *exports):
        done = acorn(*command, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert "not Unicode text" in done.stderr
        assert "where: --out" in done.stderr
        assert list(folder.iterdir()) == []
    prepare = ("data", "prepare", "--tokenizer", run / "tokenizer.json", "--input", text_file, "--out", "shards")
    for command in (prepare, ("data", "verify", "shards"), ("evaluate", run)):
        assert acorn(*command, cwd=folder).returncode == 0


@pytest.mark.fault(47)
def test_names_that_are_not_utf8_are_refused_from_python(folder: Path, text_file: Path) -> None:
    """Fault 47: the same."""
    with pytest.raises(UsageError, match="not Unicode"):
        api.pretrain("small", [f"data.source={text_file}", "train.steps=1"], out=folder / "run", quiet=True)
    assert list(folder.iterdir()) == []


@pytest.mark.fault(47)
def test_text_files_whose_names_are_not_utf8_work(
    acorn, text_file: Path, settings, folder: Path, tmp_path: Path
) -> None:
    """Fault 47: a glob may match them; a run records the names and resumes."""
    os.link(text_file, folder / f"{NAME}.txt")
    arguments = ("pretrain", "small", *settings, f"data.source={tmp_path}/c*/*.txt", "--out", tmp_path / "run")
    for more in ((), ("--resume",), ("--resume", "train.steps=9")):
        done = acorn(*arguments, *more)
        assert done.returncode == 0, done.stderr


def test_a_prompt_that_is_not_utf8_is_refused_as_bad_input(acorn, run: Path) -> None:
    for options in (("--prompt", NAME), (f"--prompt={NAME}",)):
        done = acorn("generate", run, *options)
        assert done.returncode == 3
        assert "prompt 1" in done.stderr


def _verbs(group: typer.Typer) -> list[Callable[..., Any]]:
    own = [command.callback for command in group.registered_commands if command.callback]
    return own + [verb for inner in group.registered_groups for verb in _verbs(inner.typer_instance)]


@pytest.mark.parametrize("verb", _verbs(app), ids=lambda verb: f"{verb.__module__}.{verb.__name__}")
def test_every_path_argument_uses_the_type_that_refuses_an_empty_string(verb: Callable[..., Any]) -> None:
    """Typer itself turns an empty string into the current folder."""
    for name, hint in get_type_hints(verb, include_extras=True).items():
        annotated = get_args(hint)
        if annotated and "Path" in str(annotated[0]):
            assert annotated[1].parser is not None, name
            with pytest.raises(UsageError, match="An empty string is not a path") as caught:
                annotated[1].parser("")
            assert caught.value.where


@pytest.mark.fault(97)
@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("generate '' --prompt x", "RUN"),
        ("evaluate ''", "RUN"),
        ("evaluate {run} --tasks piqa --tasks-path ''", "--tasks-path"),
        ("verify ''", "RUN"),
        ("report ''", "RUN"),
        ("report {run} --compare ''", "--compare"),
        ("report {run} ''", "RUN"),
        ("report {run} --out ''", "--out"),
        ("export '' --format hf --out new", "RUN"),
        ("export {run} --format hf --out=", "--out"),
        ("data verify ''", "DIR"),
        ("data prepare --tokenizer '' --input {text} --out new", "--tokenizer"),
        ("data prepare --tokenizer {run}/tokenizer.json --input {text} --out ''", "--out"),
        ("tokenizer inspect ''", "TOKENIZER"),
        ("tokenizer train --input {text} --out ''", "--out"),
        ("pretrain small data.source={text} --out ''", "--out"),
        ("pretrain ''", "CONFIG"),
        ("pretrain '' --resume --out {run}", "CONFIG"),
        ("plan small data.source={text} --out ''", "--out"),
        ("plan ''", "CONFIG"),
        ("sweep '' train.seed=[0,1] --out new", "CONFIG"),
        ("sweep small train.seed=[0,1] --out ''", "--out"),
        ("demo --out ''", "--out"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(acorn, run: Path, text_file: Path, command: str, where: str) -> None:
    """Fault 97: also if the current folder is a run."""
    before = sorted(path.name for path in run.iterdir())
    done = acorn(*shlex.split(command.format(run=run, text=text_file)), cwd=run)
    assert done.returncode == 2, done.stderr
    assert "An empty string is not a path" in done.stderr
    assert f"where: {where}\n" in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_prompt_may_be_empty(acorn, run: Path) -> None:
    done = acorn("generate", run, "", "--prompt", "", "--max-new-tokens", 1)
    assert done.returncode == 0, done.stderr
