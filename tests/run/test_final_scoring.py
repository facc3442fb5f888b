"""Scoring at the end of a run, with a fake clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from acorn.config import Config, DataConfig
from acorn.config_files import load_config
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenShards
from acorn.model.gpt import GPT
from acorn.progress import Quiet
from acorn.run.final_scoring import BATCH_SIZE, MIN_BATCHES_TO_TIME, TIMED_BATCHES, score_held_out
from acorn.run.resolve import choose_runtime
from acorn.run_folder import RunFolder
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train as train_tokenizer
from acorn.train.setup import Setup
from acorn.train.windows import RunText

BLOCK = 8
SOURCES = {"source": "train", "valid_source": "valid", "test_source": "test"}
LINES = [f"Line {n} tells of the old oak, and of {n * n} acorns." for n in range(150)]


class Noting(Quiet):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(lambda: LINES, "bpe", 290)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> TokenShards:
    folder = tmp_path_factory.mktemp("text")
    for name in ("train", "valid", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": f"{name} {line}"}) + "\n" for line in LINES))
    sources = {key: (str(folder / f"{name}.jsonl"),) for key, name in SOURCES.items()}
    return prepare(TextSplits.open(DataConfig(**sources)), tokenizer, folder / "shards")


def config_of(*overrides: str) -> Config:
    length = [] if any("minutes" in override for override in overrides) else ["train.steps=1"]
    shape = [
        "model.n_layer=1",
        "model.n_embd=16",
        "model.n_head=2",
        f"model.block_size={BLOCK}",
        "model.vocab_size=290",
    ]
    return load_config(
        "small",
        [
            *shape,
            "train.device=cpu",
            "train.precision=fp32",
            "train.threads=1",
            "train.eval_tokens=0",
            *length,
            *overrides,
        ],
    )


def score(shards: TokenShards, tokenizer: Tokenizer, config: Config, seconds_a_batch: float) -> tuple[dict, list[str]]:
    """The figures and the notes. The clock advances by one batch at each reading."""
    progress = Noting()
    model = GPT(config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    ticks = iter(range(10**6))
    runtime = choose_runtime(config.train)
    setup = Setup(RunFolder(Path("runs/mine")), config, runtime, {}, "acorn pretrain --resume --out runs/mine", 1.0)
    text = RunText(tokenizer, shards)
    found = score_held_out(setup, model, text, progress, lambda: next(ticks) * seconds_a_batch)
    return found, progress.notes


def all_tokens(shards: TokenShards) -> dict[str, int]:
    return {split: shards.count(split).tokens - 1 for split in ("valid", "test")}


def seconds_of_all(shards: TokenShards, seconds_a_batch: float) -> float:
    return sum(all_tokens(shards).values()) / (BATCH_SIZE * BLOCK) * seconds_a_batch


def test_the_text_of_these_tests_is_long_enough_to_be_timed(shards: TokenShards) -> None:
    assert sum(all_tokens(shards).values()) > MIN_BATCHES_TO_TIME * BATCH_SIZE * BLOCK
    assert max(all_tokens(shards).values()) > TIMED_BATCHES * BATCH_SIZE * BLOCK


def test_a_run_with_steps_scores_whole_splits_and_announces_it(shards: TokenShards, tokenizer: Tokenizer) -> None:
    found, (note,) = score(shards, tokenizer, config_of(), 1000.0)
    assert {split: figures["tokens"] for split, figures in found.items()} == all_tokens(shards)
    assert note.startswith("Scoring all of valid and test")
    assert "Ctrl-C is safe" in note
    assert "acorn pretrain --resume --out runs/mine" in note
    assert found["valid"]["bits_per_byte_note"] is None


def test_quick_scoring_is_not_announced(shards: TokenShards, tokenizer: Tokenizer) -> None:
    found, notes = score(shards, tokenizer, config_of(), 1e-3)
    assert list(found) == ["valid", "test"]
    assert notes == []


def test_a_run_with_minutes_scores_the_share_it_has_time_for(shards: TokenShards, tokenizer: Tokenizer) -> None:
    """Whole splits would take 0.7 of the minutes. Of 1/2, 1/4 and so on, 1/4 is the first within a third."""
    minutes = seconds_of_all(shards, 1.0) / 60 / 0.7
    found, (note,) = score(shards, tokenizer, config_of(f"train.minutes={minutes}"), 1.0)
    for split, tokens in all_tokens(shards).items():
        assert found[split]["tokens"] == round(tokens / 4)
        assert f"the first {round(tokens / 4):,} of {tokens:,} tokens" in found[split]["bits_per_byte_note"]
    assert note.startswith("Scoring the first 25 % of valid and test")
    assert "acorn evaluate runs/mine scores all" in note


def test_scoring_a_share_is_announced_even_if_quick(shards: TokenShards, tokenizer: Tokenizer) -> None:
    minutes = seconds_of_all(shards, 1e-3) / 60 / 0.7
    _, (note,) = score(shards, tokenizer, config_of(f"train.minutes={minutes}"), 1e-3)
    assert note.startswith("Scoring the first 25 % of valid and test")


def test_at_least_as_much_is_scored_as_in_validation(shards: TokenShards, tokenizer: Tokenizer) -> None:
    config = config_of("train.minutes=0.1", "train.eval_tokens=1000")
    found, _ = score(shards, tokenizer, config, 1000.0)
    assert {figures["tokens"] for figures in found.values()} == {1000}


def test_a_run_with_enough_minutes_scores_whole_splits(shards: TokenShards, tokenizer: Tokenizer) -> None:
    found, _ = score(shards, tokenizer, config_of("train.minutes=1000"), 1.0)
    assert {split: figures["tokens"] for split, figures in found.items()} == all_tokens(shards)
