"""The command as a user runs it: another process, exit code, stdout and stderr apart."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SETTINGS = [
    "tokenizer.vocab_size=300",
    "model.n_layer=2",
    "model.n_embd=32",
    "model.block_size=32",
    "train.steps=8",
    "train.batch_size=4",
    "train.eval_every=4",
    "train.save_every=4",
    "train.sample_every=4",
    "train.sample_tokens=8",
    "train.compile=false",
    "train.threads=1",
]

Acorn = Callable[..., subprocess.CompletedProcess[str]]


def run_acorn(*arguments: object, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "acorn", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=timeout, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="session")
def acorn() -> Acorn:
    return run_acorn


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few kilobytes of counted sentences: a lone my.txt, as a beginner has it."""
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text("".join(f"Sentence {n} says that {n} and {n + 1} make {2 * n + 1}.\n" for n in range(600)))
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    done = run_acorn("pretrain", "small", f"data.source={text_file}", *SETTINGS, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def settings() -> list[str]:
    """Overrides that make a run take a second or two."""
    return SETTINGS
