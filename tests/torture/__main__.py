"""`python -m torture`: runs all parts in full form and prints a table of the results. `make torture` calls it."""

from __future__ import annotations

import argparse
import functools
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture import calls, corruption, full_disk, kills, mutations, power
from torture.runs import FINETUNED, PRETRAINED, import_everything
from torture.workers import cores


def main() -> None:
    """Prints the table; exit code 1 if any guarantee was broken."""
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("--only", nargs="*", help="parts to run: " + ", ".join(PARTS))
    parser.add_argument("--share", type=float, default=1.0, help="share of the full form's trials (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (0)")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acorn-torture-"))
    import_everything()
    began, found = time.monotonic(), {}
    rows: list[tuple[str, str, str, str]] = []
    for name, part in PARTS.items():
        if options.only and name not in options.only:
            continue
        start = time.monotonic()
        done, result, facts = part(folder / name, options.share, options.seed)
        found[name] = facts
        rows.append((name, done, result, f"{time.monotonic() - start:,.0f} s"))
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
    versions = f"Python {platform.python_version()}, torch {_torch()}"
    print(f"\n{platform.machine()}, {len(cores())} cores, {versions}, seed {options.seed}")
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + f"  {row[3]}")
    print(f"total time: {(time.monotonic() - began) / 60:.1f} minutes")
    if any("BROKEN" in row[2] for row in rows):
        print(f"failures are in {options.json or 'the file of --json'}; the runs are in {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


Row = tuple[str, str, dict[str, Any]]


def _count(number: int, share: float, least: int = 4) -> int:
    return max(least, round(number * share))


def _verdict(broken: list[Any], good: str) -> str:
    return f"BROKEN {len(broken)} times" if broken else good


def _kills(trials: int, kinds: tuple[str, ...], folder: Path, share: float, seed: int) -> Row:
    found = kills.kills(folder, _count(trials, share, 12), kinds, seed)
    of_kinds = ", ".join(f"{count} {kind}" for kind, count in found["by_kind"].items())
    done = f"{found['trials']} runs ({of_kinds}), {found['killed']} kills"
    return done, _identical(found), found


def _stops(trials: int, kinds: tuple[str, ...], folder: Path, share: float, seed: int) -> Row:
    found = kills.signals(folder, _count(trials, share, 12), kinds, seed)
    return f"{found['trials']} runs, {found['saved']} stopped in training", _identical(found), found


def _meetings(trials: int, kinds: tuple[str, ...], folder: Path, share: float, seed: int) -> Row:
    found = kills.meetings(folder, _count(trials, share), kinds, seed)
    return f"{found['trials']} runs, {found['refused']} processes refused", _identical(found), found


def _identical(found: dict[str, Any]) -> str:
    return _verdict(found["failed"], f"{found['equal']} of {found['trials']} bit-identical")


def _calls(folder: Path, share: float, seed: int) -> Row:
    found = {"intercepted": calls.intercepted(folder)}
    if calls.has_strace():
        found["traced"] = calls.traced(folder)
    done = f"{found['intercepted']['done']} calls of Python"
    done += f", {found['traced']['done']} of the kernel" if "traced" in found else "; no strace for those of the kernel"
    broken = [fault for part in found.values() for fault in part["broken"]]
    return done, _verdict(broken, "old or new, each time"), found


def _full_disk(trials: int, folder: Path, share: float, seed: int) -> Row:
    if not full_disk.can_mount():
        return "no mount namespace here", "left out", {}
    found = full_disk.full_disk(folder, _count(trials, share, 2))
    runs = found["pretrained"]["runs"] + found["finetuned"]["runs"]
    broken = [fault for part in found.values() for fault in part["broken"]]
    done = f"{found['sweep']['done']} sizes, {runs} runs"
    return done, _verdict(broken, "old or new; resumed runs end bit-identical"), found


def _power(folder: Path, share: float, seed: int) -> Row:
    operations = power.record(folder / "recorded").operations
    found = power.check(operations, folder / "states", seed)
    done = f"{found['operations']} operations, {found['states']} states of the disk, {found['distinct']} distinct"
    return done, _verdict(found["broken"], "nothing lost, nothing torn taken"), found


def _corruption(trials: int, kinds: tuple[str, ...], folder: Path, share: float, seed: int) -> Row:
    found = corruption.corruptions(folder, _count(trials, share), kinds, seed)
    come = ", ".join(f"{count} {name}" for name, count in sorted(found["by_outcome"].items()))
    return f"{found['trials']} damages", _verdict(found["broken"], come), found


def _mutations(folder: Path, share: float, seed: int) -> Row:
    found = mutations.mutations(folder)
    noticed = len(found["noticed"])
    return f"{len(mutations.MUTATIONS)} guarantees removed", _verdict(found["unnoticed"], f"{noticed} noticed"), found


def _torch() -> str:
    import torch

    return str(torch.__version__)


PARTS: dict[str, Callable[[Path, float, int], Row]] = {
    "power-loss": _power,
    "system-calls": _calls,
    "full-disk": functools.partial(_full_disk, 12),
    "corruption": functools.partial(_corruption, 10_000, ("plain",)),
    "corruption-finetune": functools.partial(_corruption, 1_500, FINETUNED),
    "kill-9": functools.partial(_kills, 300, PRETRAINED),
    "kill-9-finetune": functools.partial(_kills, 60, FINETUNED),
    "signals": functools.partial(_stops, 100, PRETRAINED),
    "signals-finetune": functools.partial(_stops, 30, FINETUNED),
    "two-processes": functools.partial(_meetings, 12, ("plain", *FINETUNED)),
    "mutations": _mutations,
}
"""Part -> how it is run, with the trials of its full form."""

if __name__ == "__main__":
    main()
