"""RUN/sources.json: what a run's tokenizer, shards and initial weights were made from, and where prepared shards are.

It contains sizes, times and paths of one machine, so it is separate from the files that are equal in equal runs. A run
that is moved keeps its own shards; the shards of a prepared folder are found again with this file.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acorn.errors import DamageError
from acorn.files import read_sealed_json, sha256_of, write_sealed_json
from acorn.folders import readable
from acorn.run_folder import MANIFEST, RunFolder
from acorn.text.file_records import FileRecord


@dataclass(frozen=True)
class PreparedShards:
    """The folder that `data.shards` named when the run was started.

    Attributes:
        folder: its absolute path.
        from_run: its path relative to the run folder, in case both are moved together.
        manifest: SHA-256 of its manifest.json, which contains a digest of every file.
    """

    folder: str
    from_run: str
    manifest: str


@dataclass(frozen=True)
class StartFolder:
    """The folder that relative paths in a run's config are relative to.

    Attributes:
        folder: its absolute path.
        from_run: its path relative to the run folder, in case both are moved together.
    """

    folder: str
    from_run: str

    @classmethod
    def of(cls, folder: Path, run: RunFolder) -> StartFolder:
        return cls(os.path.abspath(folder), _from_run(run, os.path.abspath(folder)))


@dataclass(frozen=True)
class MadeFrom:
    """The files that a run was made from.

    Attributes:
        text: split -> the files it was read from, in order; empty if the run uses prepared shards.
        tokenizer: the file that `tokenizer.path` names, else empty.
        model: the files of the model that `train.init_from` names, else empty.
        shards: the prepared folder if the run uses one, else None.
        start: the folder in which the run was started; None if unknown.
    """

    text: dict[str, list[FileRecord]] = field(default_factory=dict)
    tokenizer: list[FileRecord] = field(default_factory=list)
    model: list[FileRecord] = field(default_factory=list)
    shards: PreparedShards | None = None
    start: StartFolder | None = None


def write_made_from(run: RunFolder, made_from: MadeFrom) -> None:
    """Writes sources.json, durably.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    write_sealed_json(run.sources, asdict(made_from))


def read_made_from(run: RunFolder) -> MadeFrom | None:
    """The content of sources.json; None if there is none, as in runs of acorn 0.1.0 and earlier.

    Raises:
        DamageError: the file was changed after it was written.
    """
    if not run.sources.exists():
        return None
    try:
        value = read_sealed_json(run.sources)
        return MadeFrom(
            {split: _records(listed) for split, listed in value["text"].items()},
            _records(value["tokenizer"]),
            _records(value["model"]),
            PreparedShards(**value["shards"]) if value["shards"] else None,
            StartFolder(**value["start"]) if value.get("start") else None,
        )
    except (DamageError, KeyError, TypeError, AttributeError) as error:
        what = error.what if isinstance(error, DamageError) else f"{run.sources.name} does not have the expected form."
        raise DamageError(
            what,
            where=str(run.sources),
            fix="restore it from a copy, or remove it; without it, acorn cannot check whether the text has changed",
        ) from None


def prepared_shards(run: RunFolder, folder: Path) -> PreparedShards:
    """Records the prepared shards in `folder`."""
    absolute = os.path.abspath(folder)
    return PreparedShards(absolute, _from_run(run, absolute), sha256_of(folder / MANIFEST))


def shards_folder(run: RunFolder, pointer: str) -> Path:
    """The folder of a run's token shards, independent of the current folder.

    This is the run's own folder unless `pointer` names a prepared one. A relative path is relative to the folder where
    the run was started, so these places are tried in order: the recorded absolute path, the recorded path relative to
    the run folder, `pointer` in the current folder, and `pointer` in the run folder. The result is the first that
    contains the shards that the run was started with, else the first that contains any shards, else the first of
    all, so that the error of opening it names it.

    Args:
        pointer: the run's `data.shards`; empty: the run's own shards.
    """
    if not pointer:
        return readable(run.data)
    try:
        known = read_made_from(run)
    except DamageError:
        known = None
    recorded = known.shards if known else None
    places = [Path(recorded.folder), run.root / recorded.from_run] if recorded else []
    places += [Path(os.path.expanduser(pointer)), run.root / pointer]
    there = [place for place in places if os.path.isfile(place / MANIFEST)]
    same = [place for place in there if recorded and sha256_of(place / MANIFEST) == recorded.manifest]
    return (same or there or places)[0]


def _from_run(run: RunFolder, absolute: str) -> str:
    try:
        return os.path.relpath(absolute, os.path.abspath(run.root))
    except ValueError:  # on another drive, on Windows
        return absolute


def _records(value: Any) -> list[FileRecord]:
    return [FileRecord(**entry) for entry in value]
