"""Makes a small run folder with the files that a training run writes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acorn.config_files import load_config, to_toml
from acorn.report.metrics_log import JsonLines

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(name, ...) -> the run folder; its training loss is 2 + 6 exp(-step / 20)."""

    def make(
        name: str = "mine",
        steps: int = 60,
        valid_every: int = 20,
        overrides: tuple[str, ...] = (),
        complete: bool = True,
    ) -> Path:
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        shape = ["model.vocab_size=500", "model.n_layer=2", "model.n_embd=64", "model.n_head=2", "model.block_size=32"]
        (run / "config.toml").write_text(to_toml(load_config(None, [f"name={name}", *shape, *overrides])))
        metrics = JsonLines(run / "metrics.jsonl")
        for step in range(1, steps + 1):
            loss = 2.0 + 6.0 * math.exp(-step / 20)
            record: dict[str, Any] = {"step": step, "samples": 8 * step, "tokens": 256 * step, "epoch": step / 100}
            record["seconds"] = 0.5 * step
            speed = {"lr": 1e-3, "grad_norm": 0.5, "tokens_per_second": 512.0, "mfu": 0.25}
            metrics.write({**record, "split": "train", "loss": loss, **speed})
            if valid_every and step % valid_every == 0:
                metrics.write({**record, "split": "valid", "loss": loss + 0.1, "bits_per_byte": (loss + 0.1) / 2})
        metrics.close()
        if complete:
            _complete(run, steps)
        return run

    return make


def _complete(run: Path, steps: int) -> None:
    """Adds what a finished run has in addition to config and metrics."""
    samples = JsonLines(run / "samples.jsonl")
    samples.write({"step": steps // 2, "prompt": "The", "text": "The cat <b>sat</b> & 'purred' \x1b[2J"})
    samples.write({"step": steps, "prompt": "", "text": "A dog, at last."})
    samples.close()
    figures = {"loss_per_token": 2.5, "bits_per_byte": 1.25, "word_perplexity": 321.5, "tokens": 4096, "lossless": True}
    note = {"bits_per_byte_note": None, "word_perplexity_note": "One end-of-line a line counts as a word."}
    evaluation = {"step": steps, "test": {**figures, **note}, "valid": {**figures, **note, "bits_per_byte": 1.5}}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "environment.json").write_text(json.dumps({"versions": {"python": "3.11.7"}, "world_size": 1, "gpu": None}))
    (run / "data").mkdir()
    count = {"documents": 12, "tokens": 1000, "bytes": 4500, "words": 800, "shards": [{"file": "test-00000.bin"}]}
    manifest = {
        "files": {},
        "splits": {"test": count, "train": {**count, "tokens": 9000}, "valid": count},
        "text": {"counts": {"train": {"dropped_duplicates": 3}}, "overlap": {"valid": 0.0125}},
        "tokenizer": {"kind": "bpe", "vocab_size": 500, "fingerprint": "ab" * 32},
    }
    (run / "data" / "manifest.json").write_text(json.dumps(manifest))
    (run / "final").mkdir()
