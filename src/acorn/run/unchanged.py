"""Whether what a run was made from is still the same: its text, the tokenizer and the model that it was given.

Sizes and times are looked at first, digests where they differ (`text/file_records.py`). What is absent cannot have been
meant to change: a run may be moved away from its text, and resumes from its own shards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from acorn.checkpoint.load import LoadedModel, load
from acorn.config import Config
from acorn.data.made_from import MadeFrom, read_made_from
from acorn.errors import AcornError, UsageError
from acorn.progress import QUIET, Progress
from acorn.run_folder import RunFolder
from acorn.text.file_records import FileRecord, compare, places_of, records_of, untold
from acorn.text.splits import TextSplits

MODEL_FILES = (
    *("config.json", "config.toml", "generation_config.json", "tokenizer*.json", "vocab.json", "merges.txt"),
    "model*.safetensors*",
)
"""Files that a model to start from is read from."""


@dataclass(frozen=True)
class Comparison:
    """What a look at everything that a run was made from came to.

    Attributes:
        made_from: what was found unchanged, as it is now; the rest as recorded.
        changed: what is another one than before, one line each: key, file, then and now.
        absent: what could not be compared, one sentence each.
    """

    made_from: MadeFrom
    changed: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def text_records(texts: TextSplits, progress: Progress = QUIET) -> dict[str, list[FileRecord]]:
    """Records of the files of each split. A dataset that does not tell its files has none.

    Raises:
        InputError: a file changed since `texts` was opened, or cannot be read.
    """
    return {split: records_of(parts, progress) for split, parts in texts.parts.items()}


def model_records(initial: LoadedModel) -> list[FileRecord]:
    """Records of the files of a model that a run starts from.

    Raises:
        InputError: one cannot be read.
    """
    folder = Path(os.path.abspath(initial.folder))
    names = sorted(entry.name for entry in folder.iterdir() if any(fnmatch(entry.name, file) for file in MODEL_FILES))
    return [FileRecord.of(str(folder / name)) for name in names]


def compare_all(known: MadeFrom, run: RunFolder, config: Config) -> Comparison:
    """Compares everything in `known` with what is there now. Nothing is fetched, and nothing is made."""
    text, changed, absent = _compare_text(known, run, config)
    found = []
    for key, records, places in (
        ("tokenizer.path", known.tokenizer, [config.tokenizer.path] if known.tokenizer else []),
        ("train.init_from", known.model, [record.name for record in known.model]),
    ):
        try:
            now, lines = compare(records, places)
            changed += [f"{key}: {line}" for line in lines]
        except AcornError as error:
            now = records
            absent.append(f"{key} cannot be compared: {error.what} ({error.where})")
        found.append(now)
    tokenizer, model = found
    return Comparison(replace(known, text=text, tokenizer=tokenizer, model=model), tuple(changed), tuple(absent))


def check_unchanged(run: RunFolder, config: Config, progress: Progress) -> MadeFrom | None:
    """Refuses to resume a run whose text, tokenizer or base changed since its first step. Reads only.

    Args:
        progress: hears of what cannot be compared.

    Returns:
        what sources.json should hold from now on; None where the run has none.

    Raises:
        UsageError: something changed; each file is named, with what it was and what it is.
        DamageError: sources.json is not what was written.
    """
    known = read_made_from(run)
    if known is None:
        progress.note(
            f"There is no {run.sources.name}, as in runs of earlier versions: whether the text has changed since the "
            "run started cannot be checked. Its own token shards are used."
        )
        return None
    found = compare_all(known, run, config)
    if found.changed:
        raise UsageError(
            "The run was started from other files:\n" + "\n".join(f"  - {line}" for line in found.changed),
            where=f"the files now, against {run.sources}",
            fix="restore them, or start another run with --out; where they are absent, the run resumes from the token "
            "shards that it has made",
        )
    for sentence in found.absent:
        progress.note(f"{sentence}; the run uses what it has made from it.")
    return found.made_from


def same_base(run: RunFolder, config: Config, progress: Progress) -> LoadedModel:
    """The model that the run began with, loaded again.

    Raises:
        UsageError: it is another one than it was.
        AcornError: as `load`.
    """
    initial = load(config.train.init_from, progress=progress)
    known = read_made_from(run)
    if known and known.model:
        _, lines = compare(known.model, [record.name for record in model_records(initial)])
        if lines:
            raise UsageError(
                "The model that the run began with is another one now:\n" + "\n".join(f"  - {line}" for line in lines),
                where="train.init_from",
                fix="put it back as it was",
            )
    return initial


def _compare_text(
    known: MadeFrom, run: RunFolder, config: Config
) -> tuple[dict[str, list[FileRecord]], list[str], list[str]]:
    """The records as they are now, what changed, and what cannot be compared."""
    if not known.text:
        return known.text, [], []
    text, changed, absent = dict(known.text), [], []
    try:
        parts = TextSplits.open(config.data, QUIET, run.root).parts
        silent = untold(part for listed in parts.values() for part in listed)
        absent += [f"{name} does not tell its files, so they cannot be compared" for name in silent]
        for split in dict.fromkeys((*parts, *text)):
            records, lines = compare(text.get(split, []), places_of(parts.get(split, ())))
            changed += [f"{split} text: {line}" for line in lines]
            text[split] = records
    except AcornError as error:
        return known.text, [], [f"The text cannot be compared: {error.what} ({error.where})"]
    return text, changed, absent
