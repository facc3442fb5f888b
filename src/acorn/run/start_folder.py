"""Resolves the relative paths of a run: they are relative to the folder in which the run was started.

A command may resume the run from another folder, or after run and text were moved together. Paths on the command line
itself are relative to the current folder.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from acorn.config import Config, DataConfig
from acorn.data.made_from import MadeFrom
from acorn.errors import AcornError
from acorn.origin import BUNDLED_PREFIX, HUB_PREFIX
from acorn.progress import QUIET, Progress
from acorn.run_folder import RunFolder
from acorn.text.example_splits import ExampleSplits, example_parts
from acorn.text.file_records import FileRecord
from acorn.text.sources import Part
from acorn.text.splits import TextSplits
from acorn.text.walk import has_wildcard

Opened = TypeVar("Opened")

PATH_KEYS = ("data.source", "data.valid_source", "data.test_source", "tokenizer.path", "train.init_from")
"""Settings that name files. (`shards_folder` resolves data.shards.)"""


def start_folders(run: RunFolder, known: MadeFrom | None, *, named_now: bool) -> list[Path]:
    """The absolute folders in which relative paths of a run's config are looked up, in this order.

    Args:
        known: the run's sources.json; without it, or without a start folder in it, the current folder is used.
        named_now: the command line names such paths, so the current folder comes first.
    """
    start = known.start if known else None
    here = Path.cwd()
    if start is None:
        return [here]
    recorded = [Path(start.folder), Path(os.path.abspath(run.root / start.from_run))]
    return list(dict.fromkeys([here, *recorded] if named_now else recorded))


def config_from(config: Config, folder: Path) -> Config:
    """`config` with its relative paths (text, tokenizer, initial model) resolved from `folder`."""
    if folder == Path.cwd():
        return config
    data, tokenizer, train = config.data, config.tokenizer, config.train
    sources = {
        key: tuple(path_from(folder, source) for source in getattr(data, key))
        for key in ("source", "valid_source", "test_source")
    }
    return config.model_copy(  # keeps which fields were set
        update={
            "data": data.model_copy(update=sources),
            "tokenizer": tokenizer.model_copy(update={"path": path_from(folder, tokenizer.path)}),
            "train": train.model_copy(update={"init_from": path_from(folder, train.init_from)}),
        }
    )


def path_from(folder: Path, path: str) -> str:
    """`path` (a file, folder, glob or `hf:FOLDER`), which is relative to `folder`, as an absolute path."""
    if not path or path.startswith(BUNDLED_PREFIX) or os.path.isabs(os.path.expanduser(path)):
        return path
    if path.startswith(HUB_PREFIX):
        inside = path.removeprefix(HUB_PREFIX)
        is_local = os.path.isdir(folder / inside) or os.path.isdir(folder / inside.partition(":")[0])
        return f"{HUB_PREFIX}{folder / inside}" if is_local else path
    if has_wildcard(path) and not os.path.lexists(folder / path):
        return os.path.join(glob.escape(str(folder)), path)
    return str(folder / path)


def first_there(path: str, folders: Sequence[Path]) -> str:
    """`path` resolved from the first of `folders` in which it exists, else from the first folder."""
    named = [path_from(folder, path) for folder in folders]
    return next(filter(os.path.lexists, named), named[0])


def open_text(config: Config, run: RunFolder, folders: Sequence[Path], progress: Progress) -> tuple[TextSplits, Path]:
    """The text of a run, from the first of `folders` in which all of it is found; and that folder.

    Raises:
        UsageError, InputError: no folder has all of it; the error is that of the first folder.
    """
    return _opened(config, folders, lambda data: TextSplits.open(data, progress, run.root))


def open_examples(
    config: Config, run: RunFolder, folders: Sequence[Path], progress: Progress
) -> tuple[ExampleSplits, Path]:
    """The same for the examples of a finetuning run.

    Raises:
        UsageError, InputError: as `open_text`; or the rows cannot be used.
    """
    # Where they are found is settled first: a row that is refused is no reason to look elsewhere.
    _, folder = _opened(config, folders, lambda data: example_parts(data, QUIET, run.root))
    return ExampleSplits.open(config_from(config, folder).data, config.finetune, progress, run.root), folder


def source_parts(config: Config, run: RunFolder, folders: Sequence[Path]) -> tuple[Mapping[str, Sequence[Part]], Path]:
    """Split -> the files and datasets that a run's sources name now, and the folder in which they are found.

    Raises:
        UsageError, InputError: as `open_text`.
    """
    if config.trains_on_text:
        texts, folder = open_text(config, run, folders, QUIET)
        return texts.parts, folder
    return _opened(config, folders, lambda data: example_parts(data, QUIET, run.root))


def _opened(config: Config, folders: Sequence[Path], opening: Callable[[DataConfig], Opened]) -> tuple[Opened, Path]:
    """What `opening` gives for the first of `folders` in which it succeeds, and that folder."""
    first: AcornError | None = None
    for folder in folders:
        try:
            return opening(config_from(config, folder).data), folder
        except AcornError as error:
            first = first or error
    assert first is not None
    raise first


def moved_to(folder: Path, known: MadeFrom, record: FileRecord) -> FileRecord:
    """`record` with the path of its file after everything below the start folder was moved to `folder`."""
    start = known.start
    if start is None or not Path(record.name).is_relative_to(start.folder):
        return record
    name = str(folder / Path(record.name).relative_to(start.folder))
    return FileRecord(name, record.size, record.changed_ns, record.content)
