"""The data of pretraining: the tokens of a batch, and a loss in other units."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from acorn.config import Config
from acorn.config_files import load_config
from acorn.data.token_shards import SplitCount, TokenSequence
from acorn.model.gpt import GPT
from acorn.progress import QUIET
from acorn.runtime.device import Runtime
from acorn.train.windows import RunText, Windows

BLOCK, N_TOKENS = 8, 67
SHAPE = [f"model.block_size={BLOCK}", "model.vocab_size=80", "model.n_layer=1", "model.n_embd=16", "train.steps=10"]


class Shards:
    """67 distinct tokens for training, in two files, and 40 for validation."""

    def __init__(self, folder: Path) -> None:
        parts = {"train": (range(40), range(40, N_TOKENS)), "valid": (range(40),)}
        self._files: dict[str, list[Path]] = {split: [] for split in parts}
        for split, ids in parts.items():
            for number, part in enumerate(ids):
                path = folder / f"{split}-{number}.bin"
                np.array(part, np.uint16).tofile(path)
                self._files[split].append(path)

    def tokens(self, split: str) -> TokenSequence:
        return TokenSequence(self._files[split], np.dtype(np.uint16))

    def count(self, split: str) -> SplitCount:
        return SplitCount(documents=1, tokens=len(self.tokens(split)), bytes=132, words=20)

    def unknown_rate(self, split: str) -> float | None:
        return None


@pytest.fixture
def windows(tmp_path: Path):
    shards = Shards(tmp_path)

    def build(*overrides: str) -> Windows:
        text: Any = SimpleNamespace(tokenizer=None, shards=shards)
        return Windows(text, config_of(*overrides))

    return build


def config_of(*overrides: str) -> Config:
    return load_config("small", [*SHAPE, *overrides])


def batch(windows: Windows, first: int, count: int, rollbacks: int = 0, done: float = 0.9) -> list[list[int]]:
    """The inputs of a batch, whose targets are the tokens that follow: on the ring 0, 1, ... 66, 0, ..."""
    found = windows.batch(first, count, rollbacks=rollbacks, done=done)
    rows: list[list[int]] = []
    for inputs, targets, counted in found.micro_batches:
        assert torch.equal(targets, (inputs + 1) % N_TOKENS)
        assert counted is None
        rows += inputs.tolist()
    assert found.tokens == found.count == BLOCK * count
    assert found.context == len(rows[0])
    return rows


def test_a_batch_contains_the_samples_of_its_numbers(windows) -> None:
    """Regardless of the batches before it and their sizes."""
    data = windows()
    whole = batch(data, 0, 12)
    assert [batch(data, 7, 1)[0], *batch(data, 8, 4)] == whole[7:]
    assert batch(windows(), 0, 12) == whole
    assert batch(windows("train.seed=7"), 0, 12) != whole


def test_an_epoch_contains_every_token(windows) -> None:
    data = windows()
    assert [data.epochs(samples) for samples in (0, 9, 18)] == [0, 1, 2]  # nine windows of 8 for 67 tokens
    for epoch in range(3):
        assert {token for row in batch(data, 9 * epoch, 9) for token in row} == set(range(N_TOKENS))


def test_the_order_changes_after_a_rollback(windows) -> None:
    """Each number of rollbacks has its own order, which is always the same."""
    data = windows()
    orders = [batch(data, 0, 9, rollbacks) for rollbacks in (0, 1, 2, 1, 0)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[3:] == [orders[1], orders[0]]


def test_short_contexts_contain_the_same_tokens(windows) -> None:
    data = windows("schedule.short_context=4", "schedule.short_share=0.5")
    short, whole = batch(data, 3, 2, done=0.49), batch(data, 3, 2, done=0.5)
    assert [len(row) for row in short] == [4] * 4
    assert [short[0] + short[1], short[2] + short[3]] == whole


def test_bits_per_byte_by_hand(windows) -> None:
    """One bit per prediction: 66 predictions for 132 bytes of training text, 39 for as many of validation text."""
    data = windows()
    assert data.figures("train", math.log(2)) == {"bits_per_byte": pytest.approx(66 / 132)}
    assert data.figures("valid", 2 * math.log(2)) == {"bits_per_byte": pytest.approx(2 * 39 / 132)}


@pytest.mark.parametrize(("limit", "scored"), [(0, 39), (20, 20), (1000, 39)])
def test_validation_scores_the_split_or_its_first_tokens(windows, limit: int, scored: int) -> None:
    """A network that predicts all 80 tokens with equal probability has a loss of log(80)."""
    data = windows(f"train.eval_tokens={limit}")
    model = GPT(data.config.model)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    score = data.score(model, Runtime("cpu", "fp32", False, 1, True), QUIET)
    assert score.count == scored
    assert score.loss_sum == pytest.approx(scored * math.log(80), rel=1e-5)


def test_the_tokenizer_is_the_texts(tmp_path: Path) -> None:
    tokenizer: Any = object()
    shards: Any = Shards(tmp_path)
    assert Windows(RunText(tokenizer, shards), config_of()).tokenizer is tokenizer
