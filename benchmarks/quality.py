"""Time to quality: the loss of the original's recipe on WikiText-2 after 15 minutes, and when `acorn demo` reaches it.

On a GPU, transformers' Trainer with the original's recipe is measured too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import acorn
from acorn.config_files import load_config, load_run_config
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenShards
from acorn.progress import QUIET
from acorn.run.initial_model import begin_weights
from acorn.run.resolve import choose_runtime
from acorn.text.splits import TextSplits
from acorn.train.network import build_network
from benchmarks.turns import Contender, take_turns

ORIGINAL_SIZES = {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256}
VALIDATION_INTERVAL_SECONDS = {"cpu": 60.0, "cuda": 2.0}
"""Device -> seconds between validations of the original's run."""


def measure_quality(
    original_minutes: float, acorn_minutes: list[float], overrides: list[str], device: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Runs the original once, and acorn once for each of `acorn_minutes`, with a schedule of that length.

    Args:
        original_minutes: length of the original's run; 0: no run.
        overrides: settings of acorn's runs.
    """
    with tempfile.TemporaryDirectory(prefix="acorn-bench-") as place:
        folder = Path(place)
        data = load_config("demo").data
        texts = TextSplits.open(data)
        tokenizer = acorn.Tokenizer.train(["bundled:wikitext-2"], kind="wordpiece", vocab_size=8192, clean="wikitext")
        shards = prepare(texts, tokenizer, folder / "shards")
        found: dict[str, Any] = {"acorn": []}
        if original_minutes:
            modules = {"original": "original_quality"} | ({"trainer": "trainer_quality"} if device == "cuda" else {})
            for name, module in modules.items():
                found[name] = _original_run(module, device, folder, shards, tokenizer.vocab_size, original_minutes, say)
                print(
                    f"\nthe original's recipe ({module}), {original_minutes:g} minutes: loss {found[name]['loss']:.3f}"
                )
                print("".join(f"{seconds:.1f} s: {loss:.3f}  " for seconds, _, loss in found[name]["curve"]))
        print(f"{'acorn demo':16}{'seconds':>9}{'loss':>8}{'bits per byte':>15}{'tokens':>12}")
        for minutes in acorn_minutes:
            row = _acorn_run(folder, minutes, [f"train.device={device}", *overrides], shards)
            found["acorn"].append(row)
            ratio = f"   {60 * original_minutes / row['seconds']:.1f}x faster" if _is_better(row, found) else ""
            print(
                f"{minutes:g} minutes".ljust(16) + f"{row['seconds']:>9.1f}{row['loss']:>8.3f}"
                f"{row['bits_per_byte']:>15.3f}{row['tokens']:>12,}{ratio}",
                flush=True,
            )
    return found


def _is_better(row: dict[str, Any], found: dict[str, Any]) -> bool:
    return "original" in found and row["loss"] <= found["original"]["loss"]


def _original_run(
    module: str,
    device: str,
    folder: Path,
    shards: Any,
    vocab_size: int,
    minutes: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The original's curve: [seconds of training, tokens, validation loss]."""
    paths = {}
    for split in ("train", "valid"):
        tokens = shards.tokens(split)
        paths[split] = str(folder / f"{split}.npy")
        np.save(paths[split], tokens[0 : len(tokens)])
    every = VALIDATION_INTERVAL_SECONDS[device]
    specification = paths | {
        "every": every,
        "device": device,
        "original_model": {"vocab_size": vocab_size, **ORIGINAL_SIZES},
    }
    contender = Contender("original's recipe", module, specification)
    take_turns([contender], rounds=round(60 * minutes / every) - 1, seconds=0, say=say)
    if contender.failure:
        raise RuntimeError(f"the original's run failed: {contender.failure}")
    curve = contender.turns[-1]["curve"]
    return {"curve": curve, "loss": min(loss for _, _, loss in curve)}


def _acorn_run(folder: Path, minutes: float, overrides: list[str], shards: TokenShards) -> dict[str, Any]:
    """One run of the demo's recipe. The time includes compiling, validating and bigram initialization."""
    out = folder / f"run-{minutes:g}"
    settings = [f"train.minutes={minutes}", "train.sample_every=0", "train.save_every=0", *overrides]
    command = [sys.executable, "-m", "acorn", "pretrain", "demo", *settings, "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    valid = json.loads((out / "evaluation.json").read_text())["valid"]
    return {
        "minutes": minutes,
        "seconds": records[-1]["seconds"] + _initialization_seconds(out, shards),
        "tokens": records[-1]["tokens"],
        "loss": valid["loss_per_token"],
        "bits_per_byte": valid["bits_per_byte"],
        "curve": [[r["seconds"], r["tokens"], r["loss"]] for r in records if r["split"] == "valid"],
    }


def _initialization_seconds(run: Path, shards: TokenShards) -> float:
    """Seconds of computing a run's initial weights, which the run's clock does not include."""
    config = load_run_config(run / "config.toml")
    runtime = choose_runtime(config.train)
    with runtime.start():
        model, _ = build_network(config, runtime)
        begin = time.perf_counter()
        begin_weights(model, config, shards.tokens("train"), None, QUIET)
        return time.perf_counter() - begin
