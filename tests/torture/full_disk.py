"""A really full disk: a small file system in memory, filled to its last page, in a mount namespace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torture import calls
from torture.runs import (
    FINETUNED,
    differences,
    import_everything,
    outcome_of,
    prepare_folder,
    run_arguments,
    start,
)

SIZE = 12 << 20
PAGE = 4096


def can_mount() -> bool:
    """Whether this user may create a mount namespace."""
    if not shutil.which("unshare"):
        return False
    probe = ["unshare", *_rights(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def full_disk(folder: Path, runs: int) -> dict[str, Any]:
    """Starts `_main` in a namespace in which `folder`/disk is the small file system.

    Args:
        runs: whole runs that meet a full disk, beside the writer's sweep: so many of pretraining, and of finetuning.
    """
    disk = folder / "disk"
    disk.mkdir(parents=True, exist_ok=True)
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
    command = ["unshare", *_rights(), "sh", "-c", script, "sh", str(SIZE), str(disk)]
    command += [sys.executable, "-m", "torture.full_disk", str(folder), str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=calls.environment())
    assert done.returncode == 0, done.stdout
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _rights() -> list[str]:
    return ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]


def _sweep(root: Path, ballast: Path) -> dict[str, Any]:
    """Writes with every number of free pages, from zero until everything fits."""
    done, broken, pages = 0, [], 0
    while True:
        ballast.unlink(missing_ok=True)
        calls.prepare(root)
        _fill(ballast, leave=pages * PAGE)
        code = calls.write_in_a_fork(root)
        ballast.unlink()
        done += 1
        if code not in (0, 6):
            broken.append(f"{pages} pages free: exit code {code}")
        broken += [f"{pages} pages free: {fault}" for fault in calls.faults_in(root)]
        if code == 0:
            return {"done": done, "broken": broken}
        pages += 1


def _fill(ballast: Path, leave: int) -> None:
    """Fills the disk except for `leave` bytes."""
    room = os.statvfs(ballast.parent)
    with open(ballast, "wb") as file, contextlib.suppress(OSError):  # a run writes at the same time
        file.write(b"\0" * max(0, room.f_bavail * room.f_frsize - leave))


def _whole_runs(folder: Path, disk: Path, runs: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Runs whose disk fills up at one of their saves, some with a page or two left; with free space they are
    resumed."""
    broken: list[str] = []
    codes: dict[str, int] = {}
    prepare_folder(folder, kinds)
    wanted = {}
    for kind in kinds:
        reference = start(run_arguments(folder, kind, folder / f"reference-{kind}"), folder / f"{kind}.log", kind)
        assert reference.wait() == 0, reference.log.read_text()
        wanted[kind] = outcome_of(folder / f"reference-{kind}")
    for number in range(runs):
        kind = kinds[number % len(kinds)]
        out, ballast, log = disk / "run", disk / "ballast", folder / f"run-{number}.log"
        command = run_arguments(folder, kind, out)
        run = start(command, log, kind)
        saves = 1 + number * 20 // runs
        while run.poll() is None and run.phase.entered("save") < saves:
            time.sleep(0.0005)
        _fill(ballast, leave=(number % 4) * 8 * PAGE)
        code = run.wait()
        codes[str(code)] = codes.get(str(code), 0) + 1
        text = log.read_text()
        if code not in (0, 6) or "Traceback" in text or (code == 6 and "fix:" not in text):
            broken.append(f"run {number}, {kind}: exit code {code}: {text[-500:]}")
        ballast.unlink()
        if start(command, log, kind).wait() != 0:
            broken.append(f"run {number}, {kind}, cannot resume: {log.read_text()[-500:]}")
        else:
            broken += [f"run {number}, {kind}: {name} differs" for name in differences(outcome_of(out), wanted[kind])]
        shutil.rmtree(out)
    return {"runs": runs, "codes": codes, "broken": broken}


def _main() -> None:
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    disk = folder / "disk"
    found = {"sweep": _sweep(disk / "writer", disk / "ballast")}
    shutil.rmtree(disk / "writer")
    if runs:
        import_everything()
        found["pretrained"] = _whole_runs(folder / "pretrained", disk, runs, ("plain",))
        found["finetuned"] = _whole_runs(folder / "finetuned", disk, runs, FINETUNED)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
