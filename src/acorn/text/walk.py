"""Finds the files of a folder or a pattern. Skips what is not the user's text: runs, models, shards, caches."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acorn.config_files import SEAL_LINE
from acorn.errors import InputError
from acorn.run_folder import CONFIG, MANIFEST, MODEL_CONFIG, SWEEP_FORMAT, SWEEP_RECORD, TOKENIZER
from acorn.text.reading import names_of

RUN, MODEL, SHARDS, OUT = "run folder", "model folder", "folder of token shards", "folder of this run (--out)"
SWEEP = "folder of a sweep"
CACHE, PACKAGES = "cache", "folder of installed packages"

_HUB_CACHES = ("models--", "datasets--", "spaces--")
_HEAD_BYTES = 1 << 16


@dataclass
class Walk:
    """One search for files.

    Args:
        out: the folder of the run that the text is for. It need not exist yet.

    Attributes:
        skipped: the folders that were skipped, each with its kind.
    """

    out: Path | None = None
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def files(self, folder: Path, depth: int | None = None) -> Iterator[Path]:
        """Yields all files below `folder`, at most `depth` folders deep, except hidden ones (`.name`).

        Links to folders are followed, but each folder is entered once, so that a loop of links ends. `folder` itself is
        never skipped.

        Raises:
            InputError: a folder cannot be read.
        """
        entered: set[tuple[int, int]] = set()
        for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
            status = os.stat(here)
            inside = len(Path(here).relative_to(folder).parts)
            if (status.st_dev, status.st_ino) in entered or (depth is not None and inside > depth):
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            if inside and (kind := self.kind_of(Path(here), folders, files)):
                self.skipped.append((Path(here), kind))
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(here, name) for name in files if not name.startswith("."))

    def matches(self, pattern: Path) -> Iterator[Path]:
        """Yields the files that match `pattern`. `**` matches any number of folders, `*` and `?` parts of a name."""
        parts = pattern.parts
        first = next(index for index, part in enumerate(parts) if has_wildcard(part))
        folder, wanted = Path(*parts[:first]), parts[first:]
        if os.path.isdir(folder):
            depth = None if "**" in wanted else len(wanted) - 1
            found = self.files(folder, depth)
            yield from (path for path in found if _matches(path.relative_to(folder).parts, wanted))

    def kind_of(self, folder: Path, folders: Sequence[str], files: Sequence[str]) -> str:
        """The kind of a folder with these entries if it is not the user's text, else an empty string."""
        names = set(files)
        if self.out is not None and self.out.exists() and os.path.samefile(folder, self.out):
            return OUT
        if CONFIG in names and _contains(folder / CONFIG, SEAL_LINE, at_end=True):
            return RUN
        if {"environment.json", "metrics.jsonl"} <= names:
            return RUN
        if SWEEP_RECORD in names and _contains(folder / SWEEP_RECORD, SWEEP_FORMAT):
            return SWEEP
        if names & {"tokenizer_config.json", "adapter_config.json"}:
            return MODEL
        if MODEL_CONFIG in names and _contains(folder / MODEL_CONFIG, '"model_type"'):
            return MODEL
        if {MANIFEST, TOKENIZER} <= names and any(name.endswith(".bin") for name in names):
            return SHARDS
        if folder.name == "node_modules" or "pyvenv.cfg" in names:
            return PACKAGES
        if folder.name == "__pycache__" or "CACHEDIR.TAG" in names:  # https://bford.info/cachedir
            return CACHE
        return CACHE if folder.name.startswith(_HUB_CACHES) and "snapshots" in folders else ""

    def summary(self) -> str:
        """The skipped folders in words: `2 run folders (runs/1, runs/2), 1 cache (build)`; empty if there are none."""
        kinds = Counter(kind for _, kind in self.skipped)
        named = {kind: names_of(str(path) for path, its in self.skipped if its == kind) for kind in kinds}
        return ", ".join(f"{n:,} {_plural(kind) if n > 1 else kind} ({named[kind]})" for kind, n in kinds.items())


def has_wildcard(text: str) -> bool:
    return any(character in text for character in "*?[")


def _plural(kind: str) -> str:
    return kind.replace("folder", "folders", 1) if "folder" in kind else f"{kind}s"


def _contains(path: Path, words: str, *, at_end: bool = False) -> bool:
    """Whether the beginning (or end) of a regular file contains `words`."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            if at_end:
                file.seek(max(0, path.stat().st_size - _HEAD_BYTES))
            return words.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _refuse(error: OSError) -> None:
    what = f"This folder cannot be read: {error.strerror}."
    raise InputError(what, where=str(error.filename), fix="check its permissions")


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_matches(names[skipped:], wanted[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], wanted[0]) and _matches(names[1:], wanted[1:])
