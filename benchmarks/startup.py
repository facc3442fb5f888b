"""Startup time: importing acorn, `acorn --help`, and the first step of the demo."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure_startup(rounds: int) -> dict[str, Any]:
    """Medians of whole processes, in seconds."""
    python = [sys.executable, "-c"]
    commands = {
        "an empty Python": [*python, "pass"],
        "import acorn": [*python, "import acorn"],
        "acorn --help": [sys.executable, "-m", "acorn", "--help"],
    }
    found: dict[str, Any] = {name: _seconds(command, rounds) for name, command in commands.items()}
    turns = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="acorn-bench-") as folder:
            turns.append(_first_steps(Path(folder)))
    found |= {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    print()
    for name, seconds in found.items():
        print(f"{name:44}{seconds:>8.2f} s")
    return found


def _seconds(command: list[str], rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def _first_steps(folder: Path) -> dict[str, float]:
    """Seconds from the start of the process to the demo's first line of metrics: with text to prepare, and prepared."""
    found = {}
    shards = folder / "first" / "data"
    for number, more in (("first", []), ("second", [f"data.shards={shards}"])):
        out = folder / number
        command = [sys.executable, "-m", "acorn", "pretrain", "demo", "train.minutes=0.05", *more, "--out", str(out)]
        metrics = out / "metrics.jsonl"
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        name = "text ready" if more else "text to prepare"
        found[f"demo's first step, {name}"] = time.perf_counter() - begin
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
    return found
