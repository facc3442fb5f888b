"""Streams datasets of the Hugging Face Hub, or a local folder in the Hub's layout, which needs no network.

A source is `hf:OWNER/NAME[:CONFIG]` or `hf:FOLDER[:CONFIG]`. The layout of a folder is that of a dataset on the Hub:
a README.md that lists the configs, or files named after their split (`train-00000-of-00001.parquet`), either at the top
or in one folder per config.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from acorn.config import DataConfig
from acorn.errors import AcornError, InputError, UsageError
from acorn.hub_errors import one_line, why_not_reached
from acorn.origin import HUB_PREFIX, is_repository
from acorn.progress import QUIET, Progress
from acorn.text.reading import Reading
from acorn.text.rows import Row, check_columns, column_bytes, undecodable_value

SPLIT_NAMES = {"train": ("train",), "valid": ("validation", "valid", "val", "dev"), "test": ("test",)}
WAIT_NOTE_S = 5.0  # seconds to wait for an answer before a note says so
_WAIT_NOTE_INTERVAL_S = 30.0
_WATCH_THREAD = "waiting for the Hub"  # name of the thread that writes the note
_BATCH_ROWS = 1024
# By default the library retries 20 times around five inner attempts: half an hour if the network is down.
_RETRY_LIMITS = {"STREAMING_OPEN_MAX_RETRIES": 2, "STREAMING_READ_MAX_RETRIES": 3}


def is_on_the_hub(source: str) -> bool:
    """Whether `source` names a dataset on the Hub rather than a local folder in the Hub's layout.

    Raises:
        UsageError: it begins with `hf:` and is neither.
    """
    return source.startswith(HUB_PREFIX) and not os.path.isdir(_parse(source)[0])


@dataclass(frozen=True, eq=False)
class HubSplit:
    """One split of a dataset. Each pass streams it again, at the same revision."""

    name: str  # for messages
    dataset: Any  # datasets.IterableDataset
    progress: Progress  # gets a note if the Hub does not answer
    files: tuple[str, ...] = ()  # paths, or addresses on the Hub (`hf://...`), in reading order


class _Streams(NamedTuple):
    """The splits of a dataset, by the dataset's names for them."""

    datasets: Any  # name -> datasets.IterableDataset
    files: dict[str, tuple[str, ...]]  # name -> its files


def hub_splits(source: str, progress: Progress) -> dict[str, HubSplit]:
    """The splits of `hf:...`, under acorn's names for them (`train`, `valid`, `test`).

    Raises:
        UsageError: `source` does not have the form above, or the config is unknown or missing.
        InputError: the dataset does not exist, or the Hub cannot be reached and there is no local copy.
    """
    path, config = _parse(source)
    if os.path.isdir(path):
        streams = _streams(source, os.path.abspath(path), config, QUIET)
        progress = QUIET  # a local folder: nothing to wait for
    else:
        streams = _remote_streams(source, path, config, progress)
    there = streams.datasets
    chosen = {split: next((name for name in names if name in there), "") for split, names in SPLIT_NAMES.items()}
    if len(there) == 1:
        chosen = {"train": next(iter(there))}
    if not chosen["train"]:
        raise InputError(
            f"The dataset has no training split; it has {', '.join(there)}.",
            where=source,
            fix="name another dataset",
        )
    return {
        split: HubSplit(f"{source}, split {name}", there[name], progress, streams.files.get(name, ()))
        for split, name in chosen.items()
        if name
    }


class HubReader:
    """One pass over the rows of a split. A position is the row number, from 1."""

    def __init__(self, split: HubSplit, data: DataConfig, reading: Reading) -> None:
        self.split, self.data, self.reading = split, data, reading
        self.bytes_read = 0  # of text

    def rows(self) -> Iterator[Row]:
        number = 0
        for table in tables_of(self.split):
            check_columns(table.column_names, self.data.text_field, self.split.name, self.reading)
            for raw in column_bytes(table.column(self.data.text_field), self.data.text_field, self.split.name):
                number += 1
                if raw is None:
                    self.reading.refuse(f"The field {self.data.text_field!r} of this row is null.", self.place(number))
                else:
                    self.bytes_read += len(raw)
                    yield raw, number

    def place(self, position: int, byte: int = 0) -> str:
        return f"{self.split.name}, row {position}" + (f", byte {byte} of its text" if byte else "")

    def undecodable(self, error: UnicodeDecodeError, position: int) -> InputError:
        return undecodable_value(error, self.place(position, error.start))


def files_of(split: HubSplit) -> list[HubSplit]:
    """The files of `split`, each as a split of its own, in reading order; `[split]` if they cannot be told apart."""
    count = len(split.files)
    if count < 2 or split.dataset.num_shards != count:
        return [split]
    return [
        replace(
            split,
            name=f"{split.name}, file {number + 1} of {count}",
            dataset=split.dataset.shard(count, number, contiguous=True),
            files=(file,),
        )
        for number, file in enumerate(split.files)
    ]


def tables_of(split: HubSplit) -> Iterator[Any]:
    """One pass over a split. Yields Arrow tables with a batch of rows each.

    Raises:
        InputError: the Hub cannot be reached, or the dataset cannot be read.
    """
    with _library_call(split.name, split.progress):
        tables = iter(split.dataset.with_format("arrow").iter(batch_size=_BATCH_ROWS))
    while True:
        with _library_call(split.name, split.progress):
            table = next(tables, None)
        if table is None:
            return
        yield table


def _parse(source: str) -> tuple[str, str]:
    """The folder or OWNER/NAME, and the config ("" if none is named)."""
    reference = source.removeprefix(HUB_PREFIX)
    if reference and os.path.isdir(reference):
        return reference, ""
    path, _, config = reference.rpartition(":") if ":" in reference else (reference, "", "")
    if (path and os.path.isdir(path)) or is_repository(path):
        return path, config
    raise UsageError(
        f"{source} is neither a Hub dataset nor an existing folder.",
        where=str(Path(path).absolute()),
        fix="write hf:OWNER/NAME, hf:OWNER/NAME:CONFIG or hf:FOLDER:CONFIG",
    )


def _remote_streams(source: str, repository: str, config: str, progress: Progress) -> _Streams:
    """The dataset on the Hub, or this machine's copy of it if the Hub does not answer."""
    import huggingface_hub

    try:
        return _streams(source, repository, config, progress)
    except InputError as unreachable:
        try:
            copy = huggingface_hub.snapshot_download(repository, repo_type="dataset", local_files_only=True)
            streams = _streams(source, copy, config, QUIET)
        except (OSError, InputError):  # there is no copy, or it contains no data
            raise unreachable from None
        progress.note(f"The Hub cannot be reached. {source} is read from the local copy in {copy}.")
        return streams


def _streams(source: str, path: str, config: str, progress: Progress) -> _Streams:
    """The splits of the dataset at `path`, a folder or a repository."""
    import datasets

    folders = _config_folders(Path(path))
    name, folder = (None, _choose(config, folders, source)) if folders else (config or None, None)
    with _library_call(source, progress):
        try:
            builder = datasets.load_dataset_builder(path, name, data_dir=folder)
        except ValueError:  # a config is missing or unknown, or the data cannot be read
            names = datasets.get_dataset_config_names(path)
            if (name is None and len(names) < 2) or name in names:
                raise
            _choose(config, names, source)
        files = {str(split): tuple(listed) for split, listed in (builder.config.data_files or {}).items()}
        return _Streams(builder.as_streaming_dataset(), files)


def _config_folders(path: Path) -> list[str]:
    """The configs of a local `path` whose README.md lists none: folders with files named `train*`."""
    card = path / "README.md"
    listed = card.is_file() and re.search("^configs:", card.read_text("utf-8", "replace"), re.MULTILINE)
    if listed or not path.is_dir():
        return []
    splits = {name for names in SPLIT_NAMES.values() for name in names}
    folders = [entry for entry in path.iterdir() if entry.is_dir() and entry.name not in splits]
    return sorted(folder.name for folder in folders if any(folder.glob("train*")))


def _choose(config: str, names: list[str], source: str) -> str:
    """`config`, or the only config if none is named."""
    if config in names:
        return config
    if not config and len(names) == 1:
        return names[0]
    base = source.removesuffix(f":{config}") if config else source
    raise UsageError(
        f"The dataset has no config {config!r}." if config else "The dataset has several configs; name one of them.",
        where=source,
        fix="use one of " + ", ".join(f"{base}:{name}" for name in sorted(names)),
    )


@contextlib.contextmanager
def _library_call(name: str, progress: Progress) -> Iterator[None]:
    """Wraps a call that may wait for the Hub: a note about the wait, few and silent retries, failures as InputError."""
    import datasets

    before = {setting: getattr(datasets.config, setting) for setting in _RETRY_LIMITS}
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("huggingface_hub", "datasets"))}
    bars = datasets.are_progress_bars_disabled()
    answered = threading.Event()
    watch = threading.Thread(target=_say_waiting, args=(name, progress, answered), name=_WATCH_THREAD, daemon=True)
    watch.start()
    try:
        for setting, tries in _RETRY_LIMITS.items():
            setattr(datasets.config, setting, tries)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        yield
    except AcornError:
        raise
    except Exception as error:  # the library and its dependencies raise errors of many kinds
        raise _load_error(name, error) from error
    finally:
        answered.set()
        watch.join()
        for setting, tries in before.items():
            setattr(datasets.config, setting, tries)
        for logger, level in loggers.items():
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _say_waiting(name: str, progress: Progress, answered: threading.Event) -> None:
    started, patience = time.monotonic(), WAIT_NOTE_S
    while not answered.wait(patience):
        progress.note(
            f"Still waiting for the Hub ({name}, {time.monotonic() - started:.0f} s). To work offline, set "
            "HF_HUB_OFFLINE=1 if the dataset is in this machine's cache, or name a local folder: hf:FOLDER."
        )
        patience = _WAIT_NOTE_INTERVAL_S


def _load_error(name: str, error: Exception) -> InputError:
    from datasets.exceptions import DatasetNotFoundError

    cause = one_line(error)
    if isinstance(error, DatasetNotFoundError):
        return InputError(
            f"The Hub does not provide this dataset: {cause}",
            where=name,
            fix="check its name; for a private dataset, run `hf auth login`",
        )
    if isinstance(error, ConnectionError):
        cause, fix = why_not_reached(error)
        repository, _, config = name.removeprefix(HUB_PREFIX).partition(":")
        local = repository.rpartition("/")[2]
        return InputError(
            f"The Hub cannot be reached: {cause}.",
            where=name,
            fix=f"{fix}; or work offline: on a machine with network access run `hf download {repository} "
            f"--repo-type dataset --local-dir {local}`, copy the folder {local} here, and use {HUB_PREFIX}{local}"
            + (f":{config}" if config else ""),
        )
    return InputError(
        f"The dataset cannot be read: {type(error).__name__}: {cause}.",
        where=name,
        fix="check its files, or use text files or a local folder (hf:FOLDER[:CONFIG]) instead",
    )
