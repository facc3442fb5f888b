"""The loop with other data than windows of a text: labeled examples of mixed lengths, with a label head and LoRA."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from acorn.checkpoint.training_state import read_checkpoint, restore
from acorn.config_files import load_config
from acorn.errors import StoppedError
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.model.loss import IGNORE
from acorn.progress import QUIET
from acorn.report.metrics_log import read_metrics
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.train.logs import open_logs
from acorn.train.loop import Loop
from acorn.train.network import Network, build_network
from acorn.train.setup import Setup
from acorn.train.step import initial_counters
from acorn.train.training_data import Batch, Score
from acorn.train.watcher import Unwatched

RUNTIME = Runtime("cpu", "fp32", False, 1, True)
CONFIG = load_config(
    "small",
    [
        *("model.n_layer=2", "model.n_embd=32", "model.n_head=2", "model.block_size=24", "model.vocab_size=50"),
        *(
            "optimizer.name=adamw",
            "optimizer.lr=0.02",
            "train.batch_size=6",
            "train.steps=24",
            "train.micro_batch_size=4",
        ),
        *("train.eval_every=6", "train.save_every=6", "train.sample_every=6", "checkpoint.keep=1"),
    ],
)
TIMES = ("seconds", "tokens_per_second")


class Examples:
    """Example n has 3 to 20 tokens; its class is 1 if it contains token 7, else 0, read at its last token."""

    class tokenizer:
        @staticmethod
        def to_json() -> str:
            return "{}"

    def __init__(self, signal_at: int | None = None) -> None:
        self._signal_at = signal_at

    def example(self, number: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(number % 90)
        ids = torch.randint(8, 50, (int(torch.randint(3, 21, (), generator=generator)),), generator=generator)
        if number % 2:
            ids[int(torch.randint(len(ids), (), generator=generator))] = 7
        return ids, number % 2

    def batch(self, first: int, count: int, *, rollbacks: int, done: float) -> Batch:
        if self._signal_at is not None and first >= self._signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        examples = sorted((self.example(number) for number in range(first, first + count)), key=lambda e: len(e[0]))
        micro_batches = [self.padded(examples[begin : begin + 4]) for begin in range(0, count, 4)]
        lengths = [len(ids) for ids, _ in examples]
        return Batch(micro_batches, tokens=sum(lengths), count=count, context=max(lengths))

    def padded(self, some: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([len(ids) for ids, _ in some])
        ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in some], batch_first=True)
        targets = torch.full_like(ids, IGNORE)
        rows = torch.arange(len(some)) * ids.size(1) + lengths - 1
        targets.view(-1)[rows] = torch.tensor([label for _, label in some])
        return ids, targets, rows

    def epochs(self, samples: int) -> float:
        return samples / 90

    def score(self, model: Any, runtime: Runtime, progress: Any) -> Score:
        ids, targets, rows = self.padded([self.example(1000 + number) for number in range(20)])
        model.eval()
        with torch.no_grad():
            outputs = model(ids, rows=rows)
            loss, count = model(ids, targets, rows=rows)
        model.train()
        accuracy = float((outputs.argmax(-1) == targets.flatten()[rows]).float().mean())
        return Score(float(loss), float(count), {"accuracy": accuracy})

    def samples(self, model: Any, runtime: Runtime, progress: Any) -> list[tuple[str, str]]:
        return []

    def figures(self, split: str, loss: float) -> dict[str, float]:
        return {}


def train(root: Path, lora: LoraSpec | None, signal_at: int | None = None) -> Mapping[str, torch.Tensor]:
    """Starts or resumes the run in `root`; the parameters at its end."""
    run = RunFolder(root)
    root.mkdir(exist_ok=True)
    with RUNTIME.start():
        model, optimizers = build_network(CONFIG, RUNTIME, head=HeadSpec("class", 2), lora=lora)
        counters = initial_counters(CONFIG.train.steps, "fp32")
        model.init_weights(0)
        if steps := run.checkpoint_steps():
            checkpoint = read_checkpoint(run.checkpoint(steps[-1]))
            restore(model, optimizers, checkpoint)
            counters = checkpoint.counters
        setup = Setup(run, CONFIG, RUNTIME, {}, f"acorn finetune base --resume --out {root}", 1e9)
        with open_logs(run, CONFIG, counters, Unwatched(), QUIET.note) as logs:
            network = Network(model, optimizers, lambda: model.init_weights(0))
            Loop(setup, network, Examples(signal_at), counters, logs, QUIET).train()
    return dict(model.named_parameters())


def metrics(root: Path) -> list[dict[str, Any]]:
    records = read_metrics(RunFolder(root).metrics)
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.mark.parametrize("lora", [None, LoraSpec(4, 8.0, dropout=0.2)], ids=["all weights", "LoRA with dropout"])
def test_a_run_on_examples_resumes_bit_identically(tmp_path: Path, lora: LoraSpec | None) -> None:
    """Stopped twice, once between saves. Dropout may be LoRA's alone."""
    whole = train(tmp_path / "whole", lora)
    for signal_at in (30, 84):
        torch.manual_seed(signal_at)  # the state of PyTorch's random numbers is no part of a run
        with pytest.raises(StoppedError, match="a checkpoint was saved") as stopped:
            train(tmp_path / "cut", lora, signal_at)
        assert stopped.value.fix == f"resume with: acorn finetune base --resume --out {tmp_path / 'cut'}"
    cut = train(tmp_path / "cut", lora)
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    last = [RunFolder(tmp_path / name).checkpoint(24) for name in ("whole", "cut")]
    one, other = (load_file(folder / "optimizer.safetensors") for folder in last)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    if lora:  # no state of what is frozen
        assert {name.rpartition(".")[0].rpartition(".")[2] for name in one} == {"lora_a", "lora_b", "weight"}
        assert {name for name in one if ".weight." in name} == {
            f"score.weight.{s}" for s in ("exp_avg", "exp_avg_sq", "step")
        }
    records = metrics(tmp_path / "whole")
    valid = [record for record in records if record["split"] == "valid"]
    assert [record["step"] for record in valid] == [6, 12, 18, 24]
    assert all("accuracy" in record for record in valid)
    assert not any("mfu" in record or "bits_per_byte" in record for record in records)
    steps = [record for record in records if record["split"] == "train"]
    n_tokens = sum(len(Examples().example(number)[0]) for number in range(24 * 6))
    assert (steps[-1]["tokens"], steps[-1]["samples"]) == (n_tokens, 144)
    assert steps[0]["loss"] == pytest.approx(0.69, abs=0.1)
    if lora is None:
        assert min(record["loss"] for record in steps[12:]) < 0.6
