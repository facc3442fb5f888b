"""Arguments that are not UTF-8, as Python hands them on: with lone surrogates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import acorn as api
from acorn.errors import UsageError

NAME = "caf\udce9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of such a name."""
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
def test_in_a_folder_that_is_not_utf8(acorn, run: Path, text_file: Path, settings, folder: Path) -> None:
    """Fault 47: what is named from there has such a path, too: a model is not written, reading and the rest work."""
    named = (f"data.source={text_file}", "--out", "run")
    for command in (("pretrain", "small", *named), ("export", run, "--format", "hf", "--out", "model")):
        done = acorn(*command, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert "not Unicode text" in done.stderr
        assert list(folder.iterdir()) == []
    prepare = ("data", "prepare", "--tokenizer", run / "tokenizer.json", "--input", text_file, "--out", "shards")
    for command in (prepare, ("data", "verify", "shards"), ("evaluate", run)):
        assert acorn(*command, cwd=folder).returncode == 0


@pytest.mark.fault(47)
def test_from_python(folder: Path, text_file: Path) -> None:
    """Fault 47: the same."""
    with pytest.raises(UsageError, match="not Unicode"):
        api.pretrain("small", [f"data.source={text_file}", "train.steps=1"], out=folder / "run", quiet=True)
    assert list(folder.iterdir()) == []


@pytest.mark.fault(47)
def test_a_text_that_is_found_works_throughout(acorn, text_file: Path, settings, folder: Path, tmp_path: Path) -> None:
    """Fault 47: through a glob, names that cannot be spelled are only names; a run records them and resumes."""
    os.link(text_file, folder / f"{NAME}.txt")
    arguments = ("pretrain", "small", *settings, f"data.source={tmp_path}/c*/*.txt", "--out", tmp_path / "run")
    for more in ((), ("--resume",), ("--resume", "train.steps=9")):
        done = acorn(*arguments, *more)
        assert done.returncode == 0, done.stderr


def test_text_for_the_model_is_no_name(acorn, run: Path) -> None:
    for options in (("--prompt", NAME), (f"--prompt={NAME}",)):
        done = acorn("generate", run, *options)
        assert done.returncode == 3
        assert "prompt 1" in done.stderr
