"""A loss curve in the repository: a change that should not affect training must not change it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cpus import needs_fp16

from acorn.report.metrics_log import read_metrics

GOLDEN = Path(__file__).with_name("golden_loss.json")

# Other CPUs sum in another order. Over 30 steps that changes the loss by about 1e-5; a changed recipe by far more.
# fp16 matmuls change it by about 5e-3.
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-2}

RECIPES = {
    "modern-muon": ["optimizer.name=muon", "optimizer.lr=0.02", "optimizer.embedding_lr=0.01"],
    "original-adamw": [
        "model.architecture=original",
        "optimizer.name=adamw",
        "optimizer.lr=1e-3",
        "schedule.name=constant",
    ],
}

PRECISIONS = [
    "fp32",
    pytest.param("fp16", marks=needs_fp16),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_curve_equals_the_golden_one(tmp_path: Path, run_tiny, name: str, precision: str) -> None:
    more = [f"train.precision={precision}", "train.steps=30", "train.save_every=0", "train.sample_every=0"]
    run_tiny(tmp_path / "run", *RECIPES[name], *more)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    curve = {split: [r["loss"] for r in records if r["split"] == split] for split in ("train", "valid")}
    golden = json.loads(GOLDEN.read_text())[name]
    assert curve["train"] == pytest.approx(golden["train"], abs=TOLERANCE[precision])
    assert curve["valid"] == pytest.approx(golden["valid"], abs=TOLERANCE[precision])
    assert curve["valid"][-1] < 0.8 * curve["train"][0]
