"""Checkpoints of a tiny network, for tests of saving and rollbacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config
from acorn.config_files import load_config
from acorn.model.gpt import GPT
from acorn.run_folder import RunFolder
from acorn.train.network import Network
from acorn.train.optimizer import build_optimizers
from acorn.train.watcher import Unwatched

CONFIG = load_config(
    "small",
    [
        "train.steps=40",
        "train.save_every=10",
        "model.n_layer=1",
        "model.n_embd=16",
        "model.vocab_size=280",
        "model.tied=false",
        "train.init=bigrams",
    ],
)


class Notes(Unwatched):
    """A watcher that records its notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None: ...

    def end(self, task: str) -> None: ...


def network_of(seed: int) -> Network:
    """The network of `CONFIG` with weights of `seed`."""
    model = GPT(CONFIG.model)
    model.init_weights(seed)
    optimizers = build_optimizers(model, CONFIG.optimizer, muon_dtype=torch.float32)
    return Network(model, optimizers, lambda: model.init_weights(CONFIG.train.seed))


def weight_of(seed: int) -> torch.Tensor:
    """One of the weights of `network_of(seed)`."""
    return network_of(seed).model.head.weight.detach()


@pytest.fixture
def saved(tmp_path: Path):
    """Saves checkpoints of a tiny model, with different weights for each step."""
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)

    def save(*steps: int, scheduled: bool = True, config: Config = CONFIG, **counters) -> RunFolder:
        for step in steps:
            network = network_of(step)
            values = Counters(step=step, samples=step, tokens=step, scheduled=scheduled, **counters)
            save_checkpoint(run.checkpoint(step), config, "{}", network.model, network.optimizers, values, {})
        return run

    return save
