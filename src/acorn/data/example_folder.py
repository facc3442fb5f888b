"""The folder of a run's examples: its own copy, so that the run can be moved away from the files of the rows.

    train.jsonl   valid.jsonl   test.jsonl   manifest.json

Each line is one example as a JSON object, with its place in the original file. Task, labels and counts are in the
manifest.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from acorn.counting import counted
from acorn.errors import DamageError, InputError
from acorn.files import disk_errors, read_json, sync_file
from acorn.folders import new_folder, verify_folder
from acorn.progress import QUIET, Progress
from acorn.run_folder import MANIFEST
from acorn.text.example_splits import NAMES, ExampleSplits
from acorn.text.examples import Chat, Completion, Example, Labeled, Message, Tagged, Task

FORMAT, KIND, VERSION = "acorn-examples", "examples", 1
ENDING = ".jsonl"
MOST_REFUSED = 100
"""At most this many refused rows are named in the manifest; all are counted."""

DataKind = Literal["shards", "examples"]


@dataclass(frozen=True)
class ExampleFolder:
    """A folder of examples that was read.

    Attributes:
        manifest: the content of its manifest.json.
        sides: name -> its examples, in order.
    """

    folder: Path
    manifest: Mapping[str, Any]
    sides: Mapping[str, list[Example]]

    @property
    def task(self) -> Task:
        return cast(Task, self.manifest["task"])

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of their ids; empty for a task without labels."""
        return tuple(self.manifest["labels"])

    @property
    def multi_label(self) -> bool:
        """Whether each example has a list of labels."""
        return bool(self.manifest["multi_label"])

    @classmethod
    def open(cls, folder: Path, progress: Progress = QUIET) -> ExampleFolder:
        """Reads the folder and compares every file with its SHA-256.

        Raises:
            InputError: it is not a folder of examples.
            DamageError: a file is missing, or is not what was written.
        """
        if kind_of_data(folder) != KIND:
            raise InputError(
                "This is not a manifest of examples.",
                where=str(folder / MANIFEST),
                fix=f"name the folder of a run of finetuning, or {_RESTORE}",
            )
        if faults := verify_examples(folder, progress):
            raise DamageError("These examples are damaged:\n  " + "\n  ".join(faults), where=str(folder), fix=_RESTORE)
        manifest = read_json(folder / MANIFEST)
        return cls(folder, manifest, {name: _read_side(folder, name, manifest) for name in manifest["splits"]})


def write_examples(out: Path, splits: ExampleSplits, extra: Mapping[str, Any]) -> None:
    """Writes the examples of each side, completely or not at all. Replaces an existing folder `out`.

    Args:
        extra: more content for the manifest.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    with new_folder(out, replace=True, extra=manifest_of(splits, extra)) as folder:
        for name, examples in splits.sides.items():
            path = folder / f"{name}{ENDING}"
            with disk_errors(path), open(path, "w", encoding="ascii", newline="\n") as file:
                file.writelines(f"{json.dumps(to_record(example))}\n" for example in examples)
                file.flush()
                sync_file(file.fileno())


def copy_examples(source: ExampleFolder, out: Path) -> None:
    """Copies a folder of examples that was read; every file is the same, byte for byte.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    with new_folder(out, replace=True, extra=dict(source.manifest)) as folder, disk_errors(out):
        for name in source.sides:
            shutil.copyfile(source.folder / f"{name}{ENDING}", folder / f"{name}{ENDING}")


def manifest_of(splits: ExampleSplits, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The content of the manifest of a folder of these examples."""
    return {
        "format": FORMAT,
        "kind": KIND,
        "version": VERSION,
        "task": splits.task,
        "labels": list(splits.labels),
        "multi_label": splits.multi_label,
        "splits": {
            name: {**dataclasses.asdict(splits.counts[name]), "examples": len(examples)}
            for name, examples in splits.sides.items()
        },
        "automatic": splits.automatic,
        "overlap": splits.overlap,
        "refused": [dataclasses.asdict(refusal) for refusal in splits.refused[:MOST_REFUSED]],
        **extra,
    }


def to_record(example: Example) -> dict[str, Any]:
    """An example as a JSON object."""
    values = dataclasses.asdict(example)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def from_record(record: Mapping[str, Any], task: Task) -> Example:
    """The inverse of `to_record`.

    Raises:
        KeyError, TypeError: `record` is not an example of `task`.
    """
    where = str(record["where"])
    if task == "chat":
        return Chat(tuple(Message(**message) for message in record["messages"]), where)
    if task == "complete":
        return Completion(record["prompt"], record["completion"], where)
    if task == "tag":
        return Tagged(tuple(record["tokens"]), tuple(record["tags"]), where)
    label = record["label"]
    return Labeled(record["text"], tuple(label) if isinstance(label, list) else label, where)


def kind_of_data(folder: Path) -> DataKind | None:
    """The kind of data in a run's data folder; None: it has no readable manifest."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (DamageError, OSError):
        return None
    if not isinstance(manifest, dict):
        return None
    return "examples" if manifest.get("kind") == KIND else "shards"


def verify_examples(folder: Path, progress: Progress = QUIET) -> list[str]:
    """Compares files with their SHA-256 and counts with lines; returns one line for each fault."""
    if faults := verify_folder(folder, progress):
        return faults
    manifest = read_json(folder / MANIFEST)
    if manifest.get("version") != VERSION:
        return [
            f"{folder / MANIFEST}: has version {manifest.get('version')} of the format; this program reads {VERSION}"
        ]
    splits = manifest.get("splits")
    if not isinstance(splits, dict) or not {"train", "valid"} <= set(splits) <= set(NAMES):
        return [f"{folder / MANIFEST}: does not have the form of examples' manifest"]
    for name in splits:
        try:
            found = len(_read_side(folder, name, manifest))
        except DamageError as error:
            faults.append(f"{error.where}: {error.what}")
            continue
        if found != splits[name].get("examples"):
            wanted = splits[name].get("examples")
            faults.append(f"{folder / name}{ENDING}: has {counted(found, 'example')}, not {wanted}")
    return faults


_RESTORE = "restore them from a copy, or remove the folder: they are read again from their sources"


def _read_side(folder: Path, name: str, manifest: Mapping[str, Any]) -> list[Example]:
    path = folder / f"{name}{ENDING}"
    try:
        lines: Sequence[str] = path.read_text("ascii").splitlines()
        return [from_record(json.loads(line), manifest["task"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamageError(f"The examples cannot be read: {error}", where=str(path), fix=_RESTORE) from None
