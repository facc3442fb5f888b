"""Runs the command as a user does: with arguments, giving exit code, stdout and stderr separately."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Done, run_acorn

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
    "train.precision=fp32",  # the choice of auto depends on the machine
    "train.threads=1",
]


Acorn = Callable[..., Done]


@pytest.fixture(scope="session")
def acorn() -> Acorn:
    return run_acorn


@pytest.fixture(scope="session")
def settings() -> list[str]:
    """Overrides for a run of a second or two."""
    return SETTINGS


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few kilobytes of numbered sentences in a single my.txt, which is what a beginner has."""
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
