"""Mutation testing: each guarantee is removed from the source in turn, and the tests must fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import acorn
from torture import calls
from torture.workers import run_trials

# Name of the removed guarantee -> file, original text, replacement.
MUTATIONS: dict[str, tuple[str, str, str]] = {
    "flush of a file": ("files.py", "    os.fsync(descriptor)\n", "    pass\n"),
    "flush of a folder": ("files.py", "        sync_file(descriptor)\n    except", "        pass\n    except"),
    "flush before a file's rename": ("files.py", "                sync_file(file.fileno())\n", ""),
    "rename of a file": ("files.py", "os.replace(temporary, path)", "shutil.copyfile(temporary, path)"),
    "flush after a file's rename": (
        "files.py",
        "        sync_folder(path.parent)\n\n\ndef write_json",
        "\n\ndef write_json",
    ),
    "flush of a folder's files": ("folders.py", "            sync_file(file.fileno())\n", "            pass\n"),
    "flush of the mark": ("folders.py", "            sync_folder(fresh)\n", ""),
    "the mark": ("folders.py", "            (fresh / MARKER).touch()\n            sync_folder(fresh)\n", ""),
    "rename of a folder": ("folders.py", "        os.replace(fresh, path)\n", "        shutil.copytree(fresh, path)\n"),
    "flush after a folder's rename": (
        "folders.py",
        "    sync_folder(path.parent)  # before the old one is removed\n",
        "",
    ),
    "the manifest's digest of itself": ("files.py", "value.get(SEAL) == seal(value)[SEAL]", "True"),
    "the check of a file's digest": ("folders.py", "if sha256_of(file) != digest:", "if False:"),
    "the check of the shards": ("run/text.py", "check=True", "check=False"),
    "the check of the newest before a rotation": (
        "checkpoint/rotation.py",
        " or verify_folder(run.checkpoint(newest))",
        "",
    ),
    "the guard against non-finite values": (
        "train/step.py",
        "    if finite:\n        if clip",
        "    if True:\n        if clip",
    ),
    "truncation of the metrics": ("report/metrics_log.py", "self._file.truncate(min(n_bytes, self.length))", "pass"),
}
TESTS = (
    "tests/test_files.py",
    "tests/test_folders.py",
    "tests/torture/test_power.py",
    "tests/torture/test_calls.py",
    "tests/checkpoint",
    "tests/train/test_step.py",
    "tests/faults/test_checkpoint_faults.py",
    "tests/faults/test_shard_faults.py",
    "tests/run/test_pretrain.py",
)
"""Tests, in the order in which they run until one fails."""


def mutations(folder: Path) -> dict[str, Any]:
    """Removes each guarantee from a copy of the source, and runs the tests with it.

    Returns:
        for each the first test that failed; those that none noticed are `unnoticed`.
    """
    names = list(MUTATIONS)
    outcomes = run_trials(
        lambda number: {"number": number, "noticed_by": _first_failure(names[number], folder / f"mutated-{number}")},
        list(range(len(names))),
        folder / "outcomes",
        "mutations",
    )
    found = {names[outcome["number"]]: outcome.get("noticed_by", outcome.get("error")) for outcome in outcomes}
    return {"noticed": found, "unnoticed": sorted(name for name, test in found.items() if "::" not in (test or ""))}


def _first_failure(name: str, source: Path) -> str:
    """The test that fails without the guarantee; "" if none does."""
    file, text, instead = MUTATIONS[name]
    root = Path(__file__).parent.parent.parent
    shutil.copytree(Path(acorn.__file__).parent, source / "acorn", ignore=shutil.ignore_patterns("__pycache__"))
    path = source / "acorn" / file
    content = path.read_text()
    assert text in content, f"{name}: {file} no longer has {text!r}"
    path.write_text(content.replace(text, instead))
    environment = calls.environment() | {"PYTHONPATH": f"{source}:{root / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
    scratch = source / "scratch"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += [f"--basetemp={scratch}", *TESTS]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    shutil.rmtree(source)
    return failed[0].split(" - ")[0].partition(" ")[2] if done.returncode and failed else ""
