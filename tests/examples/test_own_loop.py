"""The example loop: short, runs as documented, and consists of the parts of `acorn pretrain`."""

from __future__ import annotations

import importlib.util
import math
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import run_acorn

from acorn.checkpoint.load import load
from acorn.data.token_shards import TokenShards
from acorn.evaluate.validation import evaluate_split
from acorn.report.metrics_log import read_metrics
from acorn.runtime.choose import runtime_for_inference

LOOP = Path(__file__).resolve().parents[2] / "examples" / "own_loop.py"
SETTINGS = [
    *("model.n_layer=2", "model.n_embd=32", "model.block_size=32", "train.batch_size=4", "train.steps=30"),
    *("train.eval_every=10", "optimizer.clip=0.5", "train.seed=3"),
]


@pytest.fixture
def own_loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_loop", LOOP)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Created by the commands at the top of the file."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my.txt").write_text(
        "".join(f"Sentence {n} says that {n} and {n + 1} make {2 * n + 1}.\n" for n in range(600))
    )
    commands = [line.split() for line in LOOP.read_text().splitlines() if line.startswith("    acorn ")]
    for words in commands[:2]:
        done = run_acorn(*[{"4096": "300"}.get(word, word) for word in words[1:]], cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "shards"


def test_at_most_100_lines() -> None:
    assert len(LOOP.read_text().splitlines()) <= 100


def test_it_learns_and_writes_a_model(own_loop: ModuleType, shards: Path, tmp_path: Path, capsys: Any) -> None:
    losses = own_loop.main(str(shards), str(tmp_path / "my-model"), *SETTINGS)
    assert len(losses) == 30
    assert losses[0] == pytest.approx(math.log(300), rel=0.05)
    assert losses[-1] < losses[0] - 1
    printed = capsys.readouterr().out
    told = [int(line.split()[1]) for line in printed.splitlines() if re.match(r"step +\d+   loss ", line)]
    assert told == [1, 10, 20, 30]
    assert printed.count("   validation ") == 3
    done = run_acorn("generate", tmp_path / "my-model", "--prompt", "Sentence", "--max-new-tokens", 5)
    assert done.returncode == 0, done.stderr
    loaded = load(tmp_path / "my-model")
    opened = TokenShards.open(shards)
    figures = evaluate_split(loaded.model, loaded.tokenizer, opened, "valid", runtime_for_inference("cpu", "fp32"))
    assert printed.endswith(
        f"validation: {figures.loss_per_token:.4f} nats per token, {figures.bits_per_byte:.4f} bits per byte\n"
    )
    with pytest.raises(SystemExit, match="exists already"):
        own_loop.main(str(shards), str(tmp_path / "my-model"))


@pytest.mark.parametrize("arguments", [[], ["shards"]])
def test_usage(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(LOOP), *arguments])
    with pytest.raises(SystemExit, match=r"^usage: python examples/own_loop\.py SHARDS OUT"):
        runpy.run_path(str(LOOP), run_name="__main__")


def test_without_z_loss_it_equals_acorn_pretrain(
    own_loop: ModuleType, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order, initial weights, optimizers and schedule are equal, so the loss of every step is, up to rounding."""
    monkeypatch.setattr(own_loop, "Z_LOSS_WEIGHT", 0.0)
    losses = own_loop.main(str(shards), str(tmp_path / "my-model"), *SETTINGS, "train.steps=8")
    exact = ["train.precision=fp32", "train.compile=false", "train.device=cpu", "train.sample_every=0"]
    done = run_acorn(
        *("pretrain", "small", f"data.shards={shards}", *SETTINGS, *exact, "train.steps=8", "--out", tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    expected = [record["loss"] for record in records if record["split"] == "train"]
    assert losses == pytest.approx(expected, rel=1e-4)


def test_loss_is_cross_entropy_plus_z_loss(own_loop: ModuleType) -> None:
    logits, targets = torch.randn(2, 3, 5, dtype=torch.double), torch.randint(5, (2, 3))
    normalizer = logits.exp().sum(-1).log()
    likelihoods = F.softmax(logits, -1).gather(-1, targets[..., None])
    expected = -likelihoods.log().mean() + 1e-4 * (normalizer**2).mean()
    torch.testing.assert_close(own_loop.loss_function(logits, targets), expected)
