"""Files that may not be read, and links that lead nowhere (faults 123 and 124)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Done
from permissions import denied

import acorn as api

RESUME: list[object] = ["pretrain", "--resume", "--out"]

READERS: dict[str, list[list[object]]] = {
    "final": [["generate"], ["evaluate"], ["verify"], RESUME],
    "final/model.safetensors": [["generate"], ["verify"], RESUME],
    "checkpoints": [["generate", "--checkpoint", "last"], ["verify"], RESUME],
    "checkpoints/step-00000008": [["generate", "--checkpoint", "last"], ["verify"], RESUME],
    "checkpoints/step-00000008/state.json": [["verify"], RESUME],
    "config.toml": [["verify"], ["evaluate"], ["report"], RESUME],
    "tokenizer.json": [["verify"], ["tokenizer", "inspect"], RESUME],
    "metrics.jsonl": [["report"], RESUME],
    "data": [["verify"], ["evaluate"], RESUME],
    "data/valid-00000.bin": [["verify"], ["evaluate"]],
    "sources.json": [["verify"], RESUME],
    ".": [["verify"], ["generate"], ["report"], ["tokenizer", "inspect"], RESUME],
}
"""What may not be read, within a run -> commands that need it, whose last argument is the run."""


@pytest.mark.fault(123)
@pytest.mark.parametrize("name", READERS)
def test_a_part_of_a_run_that_may_not_be_read(
    name: str, run: Path, acorn: Callable[..., Done], refused: Callable[..., None], untouched: Callable[..., Any]
) -> None:
    """Fault 123: every command that needs it names it, and neither calls it damaged nor does without it."""
    with untouched(run), denied(run / name):
        for words in READERS[name]:
            before = words[:1] if "--checkpoint" in words else words
            done = acorn(*before, run, *words[len(before) :])
            refused(done, 3, "cannot be read: permission denied", "chmod -R u+rX", str((run / name).name))
            assert "damaged" not in done.stderr


@pytest.mark.fault(123)
def test_inputs_that_may_not_be_read(
    tmp_path: Path, text_file: Path, acorn: Callable[..., Done], refused: Callable[..., None]
) -> None:
    """Fault 123: a config and a text."""
    config, text, out = tmp_path / "my.toml", tmp_path / "my.txt", tmp_path / "out"
    config.write_text(f"[data]\nsource = ['{text_file}']\n")
    text.write_text("a b c\n" * 99)
    with denied(config):
        refused(acorn("pretrain", config, "--out", out), 3, "my.toml cannot be read: permission denied")
    with denied(text):
        refused(acorn("tokenizer", "train", text, "--out", out), 3, "cannot be read", "permission", "my.txt")
    assert not out.exists()


@pytest.mark.fault(123)
def test_python_callers_get_an_error_of_acorn(run: Path) -> None:
    """Fault 123: from Python, too."""
    with denied(run / "final" / "model.safetensors"), pytest.raises(api.AcornError, match="permission denied") as error:
        api.load(run)
    assert error.value.exit_code == 3


@pytest.mark.fault(124)
@pytest.mark.parametrize("below", ["", "/new"])
@pytest.mark.parametrize("target", ["nowhere", "link.html"])
def test_an_output_that_is_a_link_to_nothing(
    target: str,
    below: str,
    tmp_path: Path,
    finished: Path,
    text_file: Path,
    acorn: Callable[..., Done],
    refused: Callable[..., None],
) -> None:
    """Fault 124: every command that takes --out refuses it; link.html is a link to itself."""
    link = tmp_path / "link.html"
    link.symlink_to(tmp_path / target)
    for words in (
        ["pretrain", "small", f"data.source={text_file}"],
        ["pretrain", "--resume"],
        ["plan", "small"],
        ["demo"],
        ["finetune", finished, "--data", text_file],
        ["sweep", "small", "optimizer.lr=[0.1,0.2]"],
        ["tokenizer", "train", text_file],
        ["data", "prepare", text_file, "--tokenizer", finished],
        ["export", finished, "--format", "hf"],
        ["report", finished],
    ):
        refused(acorn(*words, "--out", f"{link}{below}"), 2, "is a symbolic link to", str(link))
    assert os.readlink(link) == str(tmp_path / target)


@pytest.mark.fault(124)
def test_python_callers_cannot_replace_a_link_to_nothing(tmp_path: Path, tokenizer_file: Path) -> None:
    """Fault 124: from Python, too."""
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with pytest.raises(api.AcornError, match="is a symbolic link to nowhere"):
        api.Tokenizer.from_file(tokenizer_file).save(link)
    with pytest.raises(api.AcornError, match="is a symbolic link to nowhere"):
        api.pretrain("small", out=link)
    assert os.readlink(link) == "nowhere"
