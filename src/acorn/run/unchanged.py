"""Checks whether the sources of a run have changed: its text, and the tokenizer and initial model it was given.

Sizes and times are compared first, digests only where they differ (`text/file_records.py`). Missing files do not count
as changed: a run may be moved away from its text, and then resumes from its own shards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from acorn.checkpoint.load import LoadedModel, load
from acorn.config import Config
from acorn.data.made_from import MadeFrom, StartFolder, read_made_from
from acorn.errors import AcornError, UsageError
from acorn.progress import QUIET, Progress
from acorn.run.start_folder import first_there, moved_to, source_parts, start_folders
from acorn.run_folder import RunFolder
from acorn.text.example_splits import ExampleSplits
from acorn.text.file_records import FileRecord, compare, places_of, records_of, untold
from acorn.text.splits import TextSplits

MODEL_FILES = (
    *("config.json", "config.toml", "generation_config.json", "tokenizer*.json", "vocab.json", "merges.txt"),
    "model*.safetensors*",
)
"""Patterns of the files that an initial model is read from."""


@dataclass(frozen=True)
class Comparison:
    """The result of comparing everything that a run was made from.

    Attributes:
        made_from: current records of what is unchanged; the old records of the rest.
        changed: what has changed, one line each: key, file, then and now.
        gone: files of the text that are missing while others exist, one line each.
        absent: what could not be compared, one sentence each.
    """

    made_from: MadeFrom
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def text_records(texts: TextSplits | ExampleSplits, progress: Progress = QUIET) -> dict[str, list[FileRecord]]:
    """Records of the files of each split. A dataset that does not list its files has none.

    Raises:
        InputError: a file changed since `texts` was opened, or cannot be read.
    """
    return {split: records_of(parts, progress) for split, parts in texts.parts.items()}


def model_records(initial: LoadedModel) -> list[FileRecord]:
    """Records of the files of the initial model.

    Raises:
        InputError: one cannot be read.
    """
    folder = Path(os.path.abspath(initial.folder))
    names = sorted(entry.name for entry in folder.iterdir() if any(fnmatch(entry.name, file) for file in MODEL_FILES))
    return [FileRecord.of(str(folder / name)) for name in names]


def compare_all(known: MadeFrom, run: RunFolder, config: Config, folders: Sequence[Path]) -> Comparison:
    """Compares everything in `known` with the current files. Nothing is fetched, and nothing is written.

    Args:
        folders: where relative paths of `config` are looked up, from `start_folders`.
    """
    text = _compare_text(known, run, config, folders)
    changed, absent, found = list(text.changed), list(text.absent), []
    for key, records in (("tokenizer.path", known.tokenizer), ("train.init_from", known.model)):
        places = [_place(record, known, folders) for record in records]
        if key == "tokenizer.path" and records:
            places = [first_there(config.tokenizer.path, folders)]
        try:
            now, lines = compare(records, places)
            changed += [f"{key}: {line}" for line in lines]
        except AcornError as error:
            now = records
            absent.append(f"{key} cannot be compared: {error.what} ({error.where})")
        found.append(now)
    tokenizer, model = found
    made_from = replace(text.made_from, tokenizer=tokenizer, model=model)
    return Comparison(made_from, tuple(changed), text.gone, tuple(absent))


def check_unchanged(run: RunFolder, config: Config, folders: Sequence[Path], progress: Progress) -> MadeFrom | None:
    """Refuses to resume a run whose text, tokenizer or initial model changed since its first step. Only reads.

    Args:
        folders: where relative paths of `config` are looked up.
        progress: is told what cannot be compared.

    Returns:
        the new content of sources.json; None if the run has no such file.

    Raises:
        UsageError: something changed; each file is named, with what it was and what it is.
        DamageError: sources.json is not what was written.
    """
    known = read_made_from(run)
    if known is None:
        progress.note(
            f"There is no {run.sources.name}, as in runs of earlier versions, so acorn cannot check whether the text "
            "has changed since the run started. Using the run's own token shards."
        )
        return None
    found = compare_all(known, run, config, folders)
    if found.changed:
        raise UsageError(
            "These files have changed since the run started:\n" + "\n".join(f"  - {line}" for line in found.changed),
            where=f"the current files, compared with {run.sources}",
            fix="restore them, or start a new run with --out; if they are moved away, the run resumes from its own "
            "token shards",
        )
    for sentence in (*(f"Missing: {line}" for line in found.gone), *found.absent):
        progress.note(f"{sentence}; the run uses what it made from it.")
    return found.made_from


def same_base(run: RunFolder, config: Config, progress: Progress) -> LoadedModel:
    """The initial model of the run, loaded again.

    Raises:
        UsageError: it has changed.
        AcornError: it cannot be loaded.
    """
    known = read_made_from(run)
    folders = start_folders(run, known, named_now=False)
    initial = load(first_there(config.train.init_from, folders), progress=progress)
    if known and known.model:
        _, lines = compare(known.model, [record.name for record in model_records(initial)])
        if lines:
            raise UsageError(
                "The model that the run started from has changed:\n" + "\n".join(f"  - {line}" for line in lines),
                where="train.init_from",
                fix="restore its files",
            )
    return initial


def _compare_text(known: MadeFrom, run: RunFolder, config: Config, folders: Sequence[Path]) -> Comparison:
    """Compares the text alone: with what its sources name now, or, if that fails, each file that still exists."""
    if not known.text:
        return Comparison(known)
    try:
        parts, folder = source_parts(config, run, folders)
        silent = untold(part for listed in parts.values() for part in listed)
        text, changed, gone = {}, [], []
        for split in dict.fromkeys((*parts, *known.text)):
            records = [moved_to(folder, known, record) for record in known.text.get(split, [])]
            text[split], lines, missing = _compare_split(records, places_of(parts.get(split, ())))
            changed += [f"{split} text: {line}" for line in lines]
            gone += [f"{split} text: {line}" for line in missing]
    except AcornError as error:
        return _compare_each(known, folders, error)
    absent = tuple(f"{name} does not list its files, so they cannot be compared" for name in silent)
    made_from = replace(known, text=text, start=StartFolder.of(folder, run))
    if known.start and folder not in start_folders(
        run, known, named_now=False
    ):  # the command line names it, in another folder
        if changed or gone:
            line = (
                f"data.source: in {folder} it names different text than in {known.start.folder}, where the run started"
            )
            return Comparison(known, (line,), absent=absent)
        if all(os.path.lexists(record.name) for records in known.text.values() for record in records):
            made_from = known  # an equal copy: the run keeps its own records
    return Comparison(made_from, tuple(changed), tuple(gone), absent)


def _compare_split(records: list[FileRecord], places: list[str]) -> tuple[list[FileRecord], list[str], list[str]]:
    """The current records of a split, the changes, and the missing files, one line each."""
    if len(records) == len(places):
        now, lines = compare(records, places)
        if not lines:
            return now, [], []
    named = {os.path.abspath(place) for place in places}
    gone = [
        record
        for record in records
        if "://" not in record.name and record.name not in named and not os.path.lexists(record.name)
    ]
    now, lines = compare([record for record in records if record not in gone], places)
    if lines:
        return records, lines, []
    there = iter(now)
    return (
        [record if record in gone else next(there) for record in records],
        [],
        [f"{record.name}: was {record.description}; is now absent" for record in gone],
    )


def _compare_each(known: MadeFrom, folders: Sequence[Path], reason: AcornError) -> Comparison:
    """Compares each file of the text by itself, after its sources could not all be read for `reason`."""
    text, changed, compared = dict(known.text), [], 0
    for split, records in known.text.items():
        text[split] = []
        for record in records:
            place = _place(record, known, folders)
            now = None
            with contextlib.suppress(AcornError):  # it cannot be opened, say: it counts as missing
                if os.path.isfile(place):
                    now = record.if_unchanged(place)
                    compared += 1
                    if now is None:
                        is_now = FileRecord.of(place, record.kind).description
                        changed.append(f"{split} text: {place}: was {record.description}; is now {is_now}")
            text[split].append(now or record)
    what = "Part of the text" if compared else "The text"
    return Comparison(
        replace(known, text=text),
        tuple(changed),
        absent=(f"{what} cannot be compared: {reason.what} ({reason.where})",),
    )


def _place(record: FileRecord, known: MadeFrom, folders: Sequence[Path]) -> str:
    """The current path of the file of `record`: its own, or where it was moved with its folder."""
    names = [record.name, *(moved_to(folder, known, record).name for folder in folders)]
    return next(filter(os.path.lexists, names), record.name)
