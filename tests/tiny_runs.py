"""A tiny text, and a tiny run of a second or two."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from acorn.config import Config
from acorn.config_files import load_config
from acorn.run.lifecycle import RunResult
from acorn.run.pretrain import pretrain

TEXT = "the cat dog bird saw ate found a small red old house tree and then it slept again"


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 60 KB of made-up sentences, the same each time."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(TEXT.split(), k=draw.randint(4, 12))) + "." for _ in range(1500)]
    path = tmp_path_factory.mktemp("text") / "my.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def tiny(text_file: Path):
    """Builds the config of a run of 12 steps, with overrides."""

    def build(*overrides: str) -> Config:
        length = [] if any(override.startswith("train.minutes") for override in overrides) else ["train.steps=12"]
        return load_config(
            "small",
            [
                *length,
                f"data.source={text_file}",
                "tokenizer.vocab_size=320",
                "model.n_layer=2",
                "model.n_embd=32",
                "model.block_size=32",
                "train.batch_size=4",
                "train.eval_every=4",
                "train.eval_tokens=500",
                "train.save_every=5",
                "train.sample_every=6",
                "train.sample_tokens=8",
                "train.compile=false",
                "train.precision=fp32",
                "train.threads=1",
                *overrides,
            ],
        )

    return build


@pytest.fixture
def run_tiny(tiny):
    """Runs it in a folder."""

    def run(out: Path, *overrides: str, **options) -> RunResult:
        return pretrain(tiny(*overrides), out, **options)

    return run
