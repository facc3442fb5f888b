"""The folder of a sweep: its paths, its recorded failures, and the checks before it is used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acorn.config import Config
from acorn.errors import DamageError, UsageError
from acorn.files import check_unicode, read_sealed_json
from acorn.run.shared_text import text_key
from acorn.run_folder import SWEEP_RECORD, RunFolder


@dataclass(frozen=True)
class SweepFolder:
    """Paths inside the folder of a sweep."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / SWEEP_RECORD

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def texts(self) -> Path:
        return self.root / "text"

    def text(self, config: Config) -> Path:
        return self.texts / text_key(config)

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.root / name)

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"


@dataclass(frozen=True)
class Failure:
    """The error of a run that failed."""

    exit_code: int
    error: str


def read_failures(folder: SweepFolder) -> dict[str, Failure]:
    """The failures in sweep.json. If it is damaged or missing there are none, so those runs are tried again."""
    try:
        return {name: Failure(**entry) for name, entry in read_sealed_json(folder.record)["failures"].items()}
    except (DamageError, KeyError, TypeError, AttributeError):
        return {}


def check_sweep_folder(folder: SweepFolder, resume: bool) -> None:
    """Refuses a folder that holds anything but a sweep; without `resume`, any folder that is not empty.

    Raises:
        UsageError: it does, or its path is not Unicode text, which no run inside it could use.
    """
    check_unicode(os.path.abspath(folder.root), "--out")
    if folder.root.exists() and not folder.root.is_dir():
        raise UsageError(f"{folder.root} is a file, not a folder.", where="--out", fix="name another folder")
    there = {entry for entry in folder.root.iterdir()} - {folder.lock} if folder.root.exists() else set()
    is_sweep = folder.record in there or there == {folder.texts}  # the latter: killed while preparing its text
    if there and not (resume and is_sweep):
        raise UsageError(
            f"The folder {folder.root} is not empty" + ("." if is_sweep else " and holds no sweep."),
            where="--out",
            fix=("add --resume to continue that sweep, or " if is_sweep else "") + "name another folder with --out",
        )


@contextlib.contextmanager
def nothing_left_of_sweep(folder: SweepFolder) -> Iterator[None]:
    """Removes the folder again if an error occurs before anything is written into it."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for text in folder.texts.iterdir() if folder.texts.is_dir() else ():
                if [entry.name for entry in text.iterdir()] == [RunFolder(text).lock.name]:
                    RunFolder(text).lock.unlink()
                    text.rmdir()
            if folder.texts.is_dir():
                folder.texts.rmdir()
            if [entry.name for entry in folder.root.iterdir()] == [folder.lock.name]:
                folder.lock.unlink()
                folder.root.rmdir()
        raise
