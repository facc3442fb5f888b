"""Tiny finetuned runs, one a task, on a base of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acorn.config_files import load_config
from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.run.pretrain import pretrain

EXACT = ["train.precision=fp32", "train.threads=1", "train.compile=false", "train.eval_every=0", "train.batch_size=4"]
ROWS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": "a cat"}]}
        for n in range(40)
    ],
    "classify": [{"text": f"the cat {n}", "label": "odd" if n % 2 else "even"} for n in range(40)],
    "tag": [{"tokens": ["the", "cat", f"{n}"], "tags": ["O", "B-PET", "O"]} for n in range(40)],
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
        rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS[task]))
        settings = ["train.steps=4", "optimizer.lr=0.01", "train.sample_tokens=2", *EXACT]
        finetune(finetune_config(str(folder / "base"), [str(rows)], overrides=settings), folder / task)
        return folder / task

    return run
