"""Both programs of the finetuning benchmark read the same tokens and train the same ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from acorn.config import ModelConfig
from acorn.data.example_batches import micro_batches
from acorn.data.examples import TokenExample
from acorn.model.gpt import GPT
from benchmarks import finetuning
from benchmarks.contenders.counting import Turns

EXAMPLES = [
    TokenExample(np.array([0, 5, 6, 7], np.int32), np.array([2, 3]), np.array([7, 0])),
    TokenExample(np.array([0, 9], np.int32), np.array([1]), np.array([8])),
]


def test_an_example_has_the_same_loss_in_both_forms() -> None:
    """The second is that of transformers: labels are shifted by one, and -100 is ignored."""
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=10)).eval()
    model.init_weights(0)
    rows = [finetuning.labelled(example) for example in EXAMPLES]
    assert rows[0] == {"input_ids": [0, 5, 6, 7, 0], "labels": [-100, -100, -100, 7, 0]}
    with torch.no_grad():
        ours = sum(float(model(ids, targets)[0]) for ids, targets, _ in micro_batches(EXAMPLES, 16, 64, 0))
        theirs = 0.0
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            theirs += float(F.cross_entropy(model(ids)[0, :-1], labels[1:], reduction="sum"))
    assert abs(ours - theirs) < 1e-4


def test_examples_of_the_tasks_are_distinct_so_that_none_is_left_out() -> None:
    rows = finetuning.date_rows()
    assert len(set(rows)) == finetuning.EXAMPLES
    assert all(prompt and answer for prompt, answer in rows)


class Pipe:
    """In place of `Answers`: asks for two turns, of three steps and of one."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.asked = iter((3, 1, 0))

    def send(self, facts: dict) -> None:
        self.sent.append(facts)

    def next_count(self) -> int:
        return next(self.asked)


def test_a_turn_counts_the_trained_tokens_of_its_own_steps() -> None:
    pipe = Pipe()
    turns = Turns(pipe, 2, iter([1, 2, 4, 8, 16, 32]))
    assert [turns.after_step(loss) for loss in (6.0, 5.0, 4.0, 3.0, 2.0, 1.0)] == [True] * 5 + [False]
    assert [facts.get("tokens") for facts in pipe.sent] == [None, 4 + 8 + 16, 32]
    assert pipe.sent[0]["losses"] == [6.0, 5.0]


def test_both_get_the_same_settings(tmp_path: Path) -> None:
    paths = {name: str(tmp_path / name) for name in ("model", "rows", "valid", "tokens", "counts")}
    ours, theirs = finetuning.contenders_of(paths, finetuning.LORA_RANK, "bf16", "python", 3)
    given = dict(setting.split("=") for setting in ours.specification["settings"])
    trainer = theirs.specification["trainer"]
    assert float(given["optimizer.lr"]) == trainer["learning_rate"]
    assert float(given["optimizer.weight_decay"]) == trainer["weight_decay"]
    assert int(given["train.batch_size"]) == trainer["per_device_train_batch_size"]
    assert (given["train.precision"] == "bf16") == trainer["bf16"]
    assert ours.specification["lora_rank"] == theirs.specification["lora_rank"] == finetuning.LORA_RANK
