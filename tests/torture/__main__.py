"""`python -m torture`: runs all parts in full form and prints a table of the results. `make torture` calls it."""

from __future__ import annotations

import argparse
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
from torture.runs import import_everything
from torture.workers import cores

FULL = {"kills": 300, "stops": 100, "runs": 12, "corruptions": 10_000}


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


def _kills(folder: Path, share: float, seed: int) -> Row:
    found = kills.kills(folder, _count(FULL["kills"], share, 12), seed=seed)
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["by_kind"].items())
    done = f"{found['trials']} runs ({kinds}), {found['killed']} kills"
    return done, _verdict(found["failed"], f"{found['equal']} of {found['trials']} bit-identical"), found


def _stops(folder: Path, share: float, seed: int) -> Row:
    found = kills.signals(folder, _count(FULL["stops"], share, 12), seed=seed)
    done = f"{found['trials']} runs, {found['saved']} stopped in training"
    return done, _verdict(found["failed"], f"{found['equal']} of {found['trials']} bit-identical"), found


def _calls(folder: Path, share: float, seed: int) -> Row:
    found = {"intercepted": calls.intercepted(folder)}
    if calls.has_strace():
        found["traced"] = calls.traced(folder)
    done = f"{found['intercepted']['done']} calls of Python"
    done += f", {found['traced']['done']} of the kernel" if "traced" in found else "; no strace for those of the kernel"
    broken = [fault for part in found.values() for fault in part["broken"]]
    return done, _verdict(broken, "old or new, each time"), found


def _full_disk(folder: Path, share: float, seed: int) -> Row:
    if not full_disk.can_mount():
        return "no mount namespace here", "left out", {}
    found = full_disk.full_disk(folder, _count(FULL["runs"], share, 2))
    broken = found["sweep"]["broken"] + found["whole"]["broken"]
    done = f"{found['sweep']['done']} sizes, {found['whole']['runs']} runs"
    return done, _verdict(broken, "old or new; resumed runs end bit-identical"), found


def _power(folder: Path, share: float, seed: int) -> Row:
    operations = power.record(folder / "recorded").operations
    found = power.check(operations, folder / "states", seed)
    done = f"{found['operations']} operations, {found['states']} states of the disk, {found['distinct']} distinct"
    return done, _verdict(found["broken"], "nothing lost, nothing torn taken"), found


def _corruption(folder: Path, share: float, seed: int) -> Row:
    found = corruption.corruptions(folder, _count(FULL["corruptions"], share), seed)
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
    "full-disk": _full_disk,
    "corruption": _corruption,
    "kill-9": _kills,
    "signals": _stops,
    "mutations": _mutations,
}

if __name__ == "__main__":
    main()
