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

from torture import (
    calls,
    clients_gone,
    corruption,
    full_disk,
    hostile_bodies,
    kills,
    mutations,
    overload,
    power,
    raw_requests,
    same_bytes,
    schema_cases,
    server_stops,
    slow_clients,
)
from torture.runs import FINETUNED, PRETRAINED, import_everything
from torture.served import import_server
from torture.workers import cores


def main() -> None:
    """Prints the table; exit code 1 if any guarantee was broken."""
    parser = argparse.ArgumentParser(prog="python -m torture")
    parser.add_argument("--only", nargs="*", help="parts to run: " + ", ".join(PARTS))
    parser.add_argument("--share", type=float, default=1.0, help="share of the full form's trials (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (0)")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--model", type=Path, help="what the same-bytes parts serve, instead of a tiny model")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="acorn-torture-"))
    import_server()
    import_everything()
    global MODEL
    MODEL = options.model
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


MODEL: Path | None = None
"""What the same-bytes parts serve, instead of a tiny model."""

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


def _same_bytes(trials: int, precision: str, folder: Path, share: float, seed: int) -> Row:
    found = same_bytes.same_bytes(folder, _count(trials, share, 60), precision, seed, MODEL)
    counts = ", ".join(f"{count} {name}" for name, count in found["counts"].items())
    done = f"{found['trials']} replies to {found['distinct']} requests ({counts})"
    return done, _verdict(found["broken"], "0 bytes different"), found


def _raw_requests(trials: int, folder: Path, share: float, seed: int) -> Row:
    found = raw_requests.raw_requests(folder, _count(trials, share), seed)
    return f"{found['trials']} connections", _verdict(found["broken"], _statuses(found)), found


def _hostile_bodies(trials: int, folder: Path, share: float, seed: int) -> Row:
    found = hostile_bodies.hostile_bodies(folder, _count(trials, share), seed)
    return f"{found['trials']} requests", _verdict(found["broken"], _statuses(found)), found


def _clients_gone(trials: int, folder: Path, share: float, seed: int) -> Row:
    found = clients_gone.clients_gone(folder, _count(trials, share, 100), seed)
    left = ", ".join(f"{count} {stage}" for stage, count in sorted(found["left"].items()))
    good = f"free after {found['freed_seconds']['longest']:.2f} s at most, memory {found['growth_mib']:+} MiB"
    return f"{found['trials']} clients ({left})", _verdict(found["broken"], good), found


def _stuck_readers(readers: int, phases: int, folder: Path, share: float, seed: int) -> Row:
    found = slow_clients.stuck_readers(folder, readers, _count(phases, share, 1), seed=seed)
    good = f"the others kept {found['ratio']:.1%}, at most {found['memory_mib']['with readers']} MiB"
    return f"{found['readers']} readers", _verdict(found["broken"], good), found


def _slow_senders(senders: int, folder: Path, share: float, seed: int) -> Row:
    found = slow_clients.slow_senders(folder, _count(senders, share), seed=seed)
    good = f"{_statuses(found)}, after {found['longest_seconds']} s at most"
    return f"{found['senders']} connections", _verdict(found["broken"], good), found


def _overload(seconds: float, folder: Path, share: float, seed: int) -> Row:
    found = overload.overload(folder, max(20.0, seconds * share), seed)
    done = f"{found['requests']} requests in {found['seconds']} s"
    return done, _verdict(found["broken"], f"{_statuses(found)}, memory {found['growth_mib']:+} MiB"), found


def _server_stops(trials: int, folder: Path, share: float, seed: int) -> Row:
    found = server_stops.server_stops(folder, _count(trials, share), seed)
    good = f"{found['finished']} streams whole, {found['cut off']} ended by a second signal"
    return f"{found['trials']} servers", _verdict(found["broken"], good), found


def _schema_cases(cases: int, folder: Path, share: float, seed: int) -> Row:
    found = schema_cases.schema_cases(folder, _count(cases, share, 500), seed)
    return f"{found['trials']} cases", _verdict(found["broken"], "no fault"), found


def _statuses(found: dict[str, Any]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(found["by_status"].items()))


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
    "same-bytes": functools.partial(_same_bytes, 10_000, "fp32"),
    "same-bytes-bf16": functools.partial(_same_bytes, 10_000, "bf16"),
    "same-bytes-int8": functools.partial(_same_bytes, 10_000, "int8"),
    "raw-requests": functools.partial(_raw_requests, 10_000),
    "hostile-bodies": functools.partial(_hostile_bodies, 10_000),
    "clients-gone": functools.partial(_clients_gone, 1_000),
    "server-stops": functools.partial(_server_stops, 40),
    "stuck-readers": functools.partial(_stuck_readers, 200, 8),
    "slow-senders": functools.partial(_slow_senders, 500),
    "schema-cases": functools.partial(_schema_cases, 20_000),
    "overload": functools.partial(_overload, 600.0),
}
"""Part -> how it is run, with the trials of its full form."""

if __name__ == "__main__":
    main()
