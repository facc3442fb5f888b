"""Fails or kills every system call of the durable writers in turn: the old or the new content must be intact.

Python's calls are intercepted in a forked process, which is fast. If `strace` is installed, the kernel's calls are made
to fail or to kill too, which includes calls that Python does not see.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT}
TRACED = ("write", "fsync", "rename", "unlink", "mkdir", "rmdir")
"""Kernel calls that are made to fail, and their `...at` forms."""

OLD, NEW = "old " * 10_000, "new " * 10_000
PLAIN_LINE = re.compile(r"^(?:\[pid +\d+\] )?(\w+)\(")


def write_all(root: Path) -> None:
    """Replaces everything that `prepare` created: a file, a folder, and a folder whose replacement was interrupted."""
    from acorn.files import write_file
    from acorn.folders import new_folder

    write_file(root / "file.txt", NEW)
    for name in ("folder", "unfinished", "fresh"):
        with new_folder(root / name, replace=True) as folder:
            (folder / "a.txt").write_text(NEW)
            (folder / "b.txt").write_text("b")


def prepare(root: Path) -> None:
    """Creates a file, a folder, and a folder whose replacement was interrupted: it exists as X.old only."""
    from acorn.files import write_file
    from acorn.folders import new_folder

    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    write_file(root / "file.txt", OLD)
    for name in ("folder", "unfinished"):
        with new_folder(root / name) as folder:
            (folder / "a.txt").write_text(OLD)
    (root / "unfinished").rename(root / "unfinished.old")
    (root / "unfinished.new").mkdir()
    (root / "unfinished.new" / ".being-written").touch()
    (root / "unfinished.new" / "a.txt").write_text("half")


def faults_in(root: Path) -> list[str]:
    """What is neither old nor new for a reader, and what the next writer cannot do or leaves behind."""
    from acorn.folders import readable, verify_folder

    found = []
    if (root / "file.txt").read_text() not in (OLD, NEW):
        found.append("file.txt is neither old nor new")
    for name in ("folder", "unfinished", "fresh"):
        path = readable(root / name)
        if name == "fresh" and not path.exists():
            continue
        if faults := verify_folder(path):
            found += faults
        elif (path / "a.txt").read_text() not in (OLD, NEW):
            found.append(f"{name} is neither old nor new")
    try:
        write_all(root)
    except Exception as error:
        return [*found, f"the next writer fails: {type(error).__name__}: {error}"]
    left = sorted(entry.name for entry in root.iterdir() if not entry.name.endswith(".tmp"))
    if left != ["file.txt", "folder", "fresh", "unfinished"]:
        found.append(f"the next writer leaves {left}")
    return found


class Interception:
    """Counts Python's calls that change files, and calls a function at one of them.

    Args:
        at: which call, counted from 1.
        act: what is done instead of the call, with its name; a write writes half of its bytes first.
    """

    def __init__(self, at: int, act: Callable[[str], None]) -> None:
        self.count, self.at, self.act = 0, at, act

    def install(self) -> None:
        for name in ("replace", "unlink", "mkdir", "rmdir", "fsync"):
            setattr(os, name, self._around(name, getattr(os, name)))
        opened = io.open

        def watched(*arguments: Any, **options: Any) -> Any:
            file = opened(*arguments, **options)
            return _Written(file, self) if file.writable() else file

        io.open = watched  # type: ignore[assignment]
        __builtins__["open"] = watched  # type: ignore[index]

    def reached(self, name: str) -> bool:
        self.count += 1
        return self.count == self.at

    def _around(self, name: str, call: Any) -> Any:
        def watched(*arguments: Any, **options: Any) -> Any:
            if self.reached(name):
                self.act(name)
            return call(*arguments, **options)

        return watched


class _Written:
    """A file whose writes are intercepted; a write that fails or kills has written half of its data."""

    def __init__(self, file: Any, interception: Interception) -> None:
        self._file, self._interception = file, interception

    def write(self, data: Any) -> int:
        if self._interception.reached("write"):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._interception.act("write")
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def intercepted(folder: Path) -> dict[str, Any]:
    """A kill and each error at every call of Python.

    Returns:
        how often, and what was broken.
    """
    root, done, broken = folder / "intercepted", 0, []
    for kind in ("KILL", *ERRORS):
        at = 0
        while True:
            at += 1
            prepare(root)
            code = _in_a_fork(root, at, kind)
            if code == 77:
                break  # there are no more calls
            done += 1
            wanted = -signal.SIGKILL if kind == "KILL" else (0, 6)
            ok = code == wanted if isinstance(wanted, int) else code in wanted
            broken += [] if ok else [f"{kind} at call {at}: exit code {code}"]
            broken += [f"{kind} at call {at}: {fault}" for fault in faults_in(root)]
    return {"done": done, "broken": broken}


def _in_a_fork(root: Path, at: int, kind: str) -> int:
    """Exit code of a process that writes everything, with a fault at call number `at`; 77: it made fewer calls."""

    def act(name: str) -> None:
        if kind == "KILL":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]))

    interception = Interception(at, act)
    return write_in_a_fork(root, interception.install, lambda: 77 if interception.count < at else 0)


def write_in_a_fork(
    root: Path, before: Callable[[], None] = lambda: None, code_of_success: Callable[[], int] = lambda: 0
) -> int:
    """Exit code (negative: the signal) of a process that writes everything: 6 if the disk refuses."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 99
    try:
        from acorn.errors import ResourceError

        before()
        try:
            write_all(root)
            code = code_of_success()
        except ResourceError:
            code = 6
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def traced(folder: Path, kinds: tuple[str, ...] = ("KILL", *ERRORS)) -> dict[str, Any]:
    """A kill and each error at every system call. Needs `strace`.

    Returns:
        how often, by call, and what was broken.
    """
    root = folder / "traced"
    prepare(root)
    calls = _calls_made(folder / "calls.txt", root)
    done, broken = 0, []
    for call, count in calls.items():
        for kind in kinds:
            for at in range(1, count + 1):
                prepare(root)
                effect = "signal=KILL" if kind == "KILL" else f"error={kind}"
                code = _strace(["-e", f"trace={call}", "-e", f"inject={call}:{effect}:when={at}"], root)
                done += 1
                if code not in ((-9, 137) if kind == "KILL" else (0, 6)):
                    broken.append(f"{kind} at {call} number {at}: exit code {code}")
                broken += [f"{kind} at {call} number {at}: {fault}" for fault in faults_in(root)]
    return {"done": done, "calls": calls, "broken": broken}


def has_strace() -> bool:
    """Whether strace is installed and may trace."""
    if not shutil.which("strace"):
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


def _calls_made(log: Path, root: Path) -> dict[str, int]:
    wanted = ",".join(f"?{call},?{call}at" for call in TRACED)
    assert _strace(["-e", f"trace={wanted}"], root, log) == 0
    counts: dict[str, int] = {}
    for line in log.read_text().splitlines():
        if match := PLAIN_LINE.match(line.lstrip("0123456789 ")):
            counts[match[1]] = counts.get(match[1], 0) + 1
    return counts


def _strace(options: list[str], root: Path, log: Path | None = None) -> int:
    command = ["strace", "-f", "-o", str(log or os.devnull), *options]
    command += [sys.executable, "-B", "-m", "torture.calls", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    return done.returncode


def environment() -> dict[str, str]:
    """The environment of a child that imports this package and the same acorn."""
    import acorn

    paths = (Path(__file__).parent.parent, Path(acorn.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def main() -> None:
    """`python -m torture.calls ROOT`: writes everything once; exit code 6 if the disk refuses."""
    from acorn.errors import ResourceError

    try:
        write_all(Path(sys.argv[1]))
    except ResourceError:
        os._exit(6)


if __name__ == "__main__":
    main()
