"""The examples of a finetuning run, read once and then found in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint
from acorn.config import Config
from acorn.config_files import to_toml
from acorn.data.example_folder import ExampleFolder, manifest_of, write_examples
from acorn.data.made_from import MadeFrom, StartFolder, write_made_from
from acorn.errors import DamageError
from acorn.files import disk_errors, sha256_of, sync_folder, write_file
from acorn.folders import remove_folder, settle
from acorn.progress import Progress
from acorn.run.start_folder import open_examples
from acorn.run.text import check_own_data
from acorn.run.unchanged import model_records, text_records
from acorn.run_folder import MANIFEST, RunFolder
from acorn.text.example_splits import ExampleSplits


@dataclass(frozen=True)
class RunExamples:
    """The examples of a run.

    Attributes:
        found: task, labels and sides.
        keep: writes those of a new run into its folder. Until then a fault of the rows leaves nothing behind.
    """

    found: ExampleFolder
    keep: Callable[[], None] = lambda: None


def examples_of_run(
    config: Config,
    run: RunFolder,
    checkpoint: Checkpoint | None,
    initial: LoadedModel | None,
    folders: Sequence[Path],
    progress: Progress,
    extra: Mapping[str, Any],
) -> RunExamples:
    """The run's examples: those in its folder where it has a checkpoint, else read now.

    Args:
        initial: the model that a new run starts from.
        folders: where relative paths of `config` are looked for.
        extra: more content for the manifest.

    Raises:
        UsageError, InputError: as `ExampleSplits.open`.
        DamageError: the examples in the folder are not those that the run was started with.
        ResourceError: the disk is full or cannot be written.
    """
    settle(run.data)
    if checkpoint is None:
        splits, folder = open_examples(config, run, folders, progress)
        found = ExampleFolder(run.data, manifest_of(splits, extra), splits.sides)
        return RunExamples(found, lambda: _keep(config, run, initial, splits, folder, progress, extra))
    if not run.data.exists():
        progress.note(f"{run.data.name}/ is gone: the examples are read again from their sources.")
        splits, _ = open_examples(config, run, folders, progress)
        write_examples(run.data, splits, extra)
    found = ExampleFolder.open(run.data, progress)
    before, now = checkpoint.resolved.get("data"), fingerprint_of(found)
    if now != before:
        raise DamageError(
            f"The examples are not those that the run was started with: the SHA-256 of their {MANIFEST} was {before}, "
            f"and is {now} now.",
            where=str(run.data / MANIFEST),
            fix="put the original ones back, or start another run with --out",
        )
    return RunExamples(found)


def fingerprint_of(examples: ExampleFolder) -> str:
    """One value for all examples: their manifest names the content of every file."""
    return sha256_of(examples.folder / MANIFEST)


def _keep(
    config: Config,
    run: RunFolder,
    initial: LoadedModel | None,
    splits: ExampleSplits,
    folder: Path,
    progress: Progress,
    extra: Mapping[str, Any],
) -> None:
    """Writes the examples of a new run; what an earlier start left is removed first."""
    made_from = MadeFrom(
        text_records(splits, progress),
        model=model_records(initial) if initial else [],
        start=StartFolder.of(folder, run),
    )
    check_own_data(run)
    with disk_errors(run.root):
        remove_folder(run.data)  # first: other examples must never stand beside this config
        sync_folder(run.root)
    write_file(run.config, to_toml(config))
    write_made_from(run, made_from)
    write_examples(run.data, splits, extra)
