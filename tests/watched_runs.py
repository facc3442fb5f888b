"""A tiny finished run with several checkpoints, and its model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from acorn.checkpoint.load import LoadedModel, load
from acorn.config_files import load_config
from acorn.run.pretrain import pretrain

TEXT = "the cat dog bird saw ate found a small red old house tree and then it slept again"


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that keeps all of its checkpoints."""
    folder = tmp_path_factory.mktemp("watched")
    draw = random.Random(0)
    lines = [" ".join(draw.choices(TEXT.split(), k=draw.randint(4, 12))) + "." for _ in range(400)]
    (folder / "my.txt").write_text("\n".join(lines) + "\n")
    sizes = ["model.n_layer=1", "model.n_head=2", "model.n_embd=32", "model.block_size=24", "tokenizer.vocab_size=300"]
    steps = ["train.steps=12", "train.batch_size=4", "train.eval_every=4", "train.eval_tokens=200"]
    saves = ["train.save_every=4", "checkpoint.keep=5", "train.sample_every=6", "train.sample_tokens=6"]
    machine = ["train.compile=false", "train.precision=fp32", "train.threads=1"]
    config = load_config("small", [f"data.source={folder / 'my.txt'}", *sizes, *steps, *saves, *machine])
    pretrain(config, folder / "tiny")
    return folder / "tiny"


@pytest.fixture(scope="session")
def watched_model(watched_run: Path) -> LoadedModel:
    return load(watched_run)
