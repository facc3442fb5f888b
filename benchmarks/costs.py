"""Speed and memory of a training step for many sizes, compared with the predictions of `acorn plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from acorn.config import Config
from acorn.config_files import with_values
from acorn.model.sizing import size_of
from benchmarks.turns import Contender, take_turns

BASE_SETTINGS = {
    "model.architecture": "modern",
    "model.n_layer": 4,
    "model.n_embd": 256,
    "model.block_size": 256,
    "model.vocab_size": 8192,
    "optimizer.name": "adamw",
    "train.batch_size": 16,
    "train.compile": False,
}
CHANGES_TO_BASE: tuple[dict[str, Any], ...] = (
    {},
    {"model.block_size": 512, "train.batch_size": 8},
    {"model.block_size": 1024, "train.batch_size": 4},
    {"model.block_size": 2048, "train.batch_size": 2},
    {"model.block_size": 4096, "train.batch_size": 1},
    {"train.batch_size": 4},
    {"train.batch_size": 32},
    {"model.vocab_size": 1024},
    {"model.vocab_size": 28_144},
    {"model.n_layer": 1},
    {"model.n_layer": 12},
    {"model.n_embd": 128},
    {"model.n_embd": 512},
    {"optimizer.name": "muon"},
    {"model.architecture": "gpt2"},
    {"model.architecture": "original"},
)
HELD_OUT_CHANGES: tuple[dict[str, Any], ...] = (
    {
        "model.n_layer": 6,
        "model.n_embd": 512,
        "model.vocab_size": 28_144,
        "model.block_size": 512,
        "train.batch_size": 8,
    },
    {"model.n_layer": 8, "model.n_embd": 384, "model.block_size": 128, "train.batch_size": 32},
    {"model.n_layer": 6, "model.n_head": 2, "model.n_kv_head": 1, "model.n_inner": 768},
    {
        "model.n_layer": 3,
        "model.n_embd": 640,
        "model.qk_norm": False,
        "model.block_size": 1024,
        "train.batch_size": 4,
    },
    {"model.n_layer": 2, "model.n_embd": 128, "train.batch_size": 64, "optimizer.name": "muon"},
)
"""Configs that the memory formula was not fitted to, unlike the base config and CHANGES_TO_BASE."""

NAME_WIDTH = 44
"""Characters of the table's first column; a longer name gets its own line."""


def measure_costs(rounds: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each config: measured, and as predicted by `acorn plan`."""
    rows = []
    print(f"\n{'':{NAME_WIDTH}}{'tokens/s':>10}{'planned':>9}{'GFLOP/s':>9}{'memory':>11}{'planned':>9}")
    for change in (*CHANGES_TO_BASE, *HELD_OUT_CHANGES):
        settings = BASE_SETTINGS | change
        name = ", ".join(f"{key.split('.')[1]} {value}" for key, value in change.items()) or "base: 16 x 256 tokens"
        say(f"costs: {name}")
        planned = _plan(settings)
        contender = Contender(name, "acorn_training", {"acorn": settings, "warm_up": 2})
        take_turns([contender], rounds=rounds, seconds=seconds, say=lambda line: None)
        facts = contender.facts()
        label = name
        if len(name) > NAME_WIDTH:
            print(name)
            label = ""
        if contender.failure:
            print(f"{label:{NAME_WIDTH}}not measured: {contender.failure}")
            continue
        flops = size_of(with_values(Config(), settings).model).flops_per_token
        row = facts | {
            "settings": settings,
            "planned_tokens_per_second": planned["tokens_per_second"],
            "planned_memory_bytes": planned["memory_bytes"],
            "flops_per_second": contender.rate * flops,
        }
        rows.append(row)
        print(
            f"{label:{NAME_WIDTH}}"
            f"{contender.rate:>10,.0f}{planned['tokens_per_second'] / contender.rate - 1:>+9.0%}"
            f"{row['flops_per_second'] / 1e9:>9,.0f}{contender.peak_bytes / 2**20:>7,.0f} MiB"
            f"{planned['memory_bytes'] / contender.peak_bytes - 1:>+9.0%}",
            flush=True,
        )
    return rows


def _plan(settings: dict[str, Any]) -> dict[str, Any]:
    """The prediction of `acorn plan`, run as a separate process."""
    values = {key: str(value).lower() if isinstance(value, bool) else value for key, value in settings.items()}
    overrides = [f"{key}={value}" for key, value in values.items()]
    command = [sys.executable, "-m", "acorn", "plan", "small", *overrides, "train.steps=100", "--json"]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
