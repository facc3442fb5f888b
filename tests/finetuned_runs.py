"""Tiny finetuned runs, one a task, on a base of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from acorn.config_files import load_config
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.pretrain import pretrain

EXACT = ["train.precision=fp32", "train.threads=1", "train.compile=false", "train.eval_every=0", "train.batch_size=4"]
ROWS = {
    "chat": {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the cat saw"}]},
    "classify": {"text": "the cat saw a bird", "label": "pet"},
    "tag": {"tokens": ["the", "cat", "saw"], "tags": ["O", "B-PET", "O"]},
}
OTHER_ROWS = {
    "chat": {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a dog"}]},
    "classify": {"text": "a house by the sea", "label": "other"},
    "tag": {"tokens": ["a", "house"], "tags": ["O", "O"]},
}


@pytest.fixture(scope="session")
def finetuned_run(watched_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Finetunes for a task, for a few steps."""
    folder = tmp_path_factory.mktemp("finetuned")
    sizes = ["model.n_layer=1", "model.n_head=2", "model.n_embd=32", "model.block_size=96", "tokenizer.vocab_size=300"]
    source = [f"data.source={watched_run.parent / 'my.txt'}", "train.steps=3", "train.sample_tokens=2"]
    pretrain(load_config("small", [*source, *sizes, *EXACT]), folder / "base")

    def run(task: str) -> Path:
        rows = folder / f"{task}.jsonl"
        rows.write_text("".join(f"{json.dumps(row)}\n" for row in [ROWS[task], OTHER_ROWS[task]] * 20))
        settings = ["train.steps=4", "optimizer.lr=0.01", "train.sample_tokens=2", *EXACT]
        finetune(finetune_config(str(folder / "base"), [str(rows)], overrides=settings), folder / task)
        return folder / task

    return run
