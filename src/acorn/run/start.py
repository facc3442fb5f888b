"""Checks before a run starts, and cleanup of what an interrupted process left in its folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from acorn.checkpoint.integrity import started_checkpoints
from acorn.checkpoint.load import LoadedModel
from acorn.config import Config
from acorn.config_files import SEAL_LINE, load_run_config, with_values
from acorn.data.made_from import shards_folder
from acorn.data.token_shards import TokenShards
from acorn.errors import AcornError, DamageError, UsageError
from acorn.files import (
    check_readable,
    check_unicode,
    disk_errors,
    half_written,
    make_folders,
    read_sealed_json,
    remove_temporary_files,
)
from acorn.folders import readable, remove_folder, settle
from acorn.report.trackers import check_packages
from acorn.run.budget import check_disk
from acorn.run.start_folder import first_there
from acorn.run_folder import RunFolder
from acorn.runtime.address_space import check_address_space
from acorn.runtime.choose import check_device
from acorn.runtime.device import available_devices, is_available
from acorn.tokenizer.tokenizer import Tokenizer


def clear_leftovers(run: RunFolder) -> None:
    """Finishes or removes what an interrupted process left half done. The caller must hold the lock."""
    with disk_errors(run.root):
        for folder in (run.root, run.checkpoints):
            remove_temporary_files(folder)
        for step in started_checkpoints(run):
            settle(run.checkpoint(step))


def missing_folders(path: Path) -> list[Path]:
    """`path` and those of its parents that do not exist yet, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


@contextlib.contextmanager
def nothing_left_behind(run: RunFolder, missing: Sequence[Path] = ()) -> Iterator[None]:
    """Cleans up if the run fails early, so that the corrected command line can use the same folder.

    An empty folder is removed. If a new run fails with a UsageError, what it wrote so far is removed too.

    Args:
        missing: folders that this process created, the innermost first; those that are empty are
            removed too.
    """
    is_new = _is_empty(run)
    try:
        yield
    except BaseException as error:
        if is_new and isinstance(error, UsageError):
            _remove_beginning(run)
        if _is_empty(run):
            run.lock.unlink(missing_ok=True)
            for folder in missing or [run.root]:
                with contextlib.suppress(OSError):  # it is not empty, or the system keeps the folder of an open file
                    folder.rmdir()
        raise


def _is_empty(run: RunFolder) -> bool:
    return all(entry == run.lock for entry in run.root.iterdir())


def _remove_beginning(run: RunFolder) -> None:
    """Removes what this process wrote before the first step. Disk errors are ignored: another error is under way."""
    if run.checkpoints.exists():
        return
    with contextlib.suppress(OSError):
        remove_folder(run.data)
        # The config last: if this process is killed here, it shows that the other files belong to a run.
        for path in (run.samples, run.metrics, run.environment, run.sources, run.tokenizer, run.config):
            path.unlink(missing_ok=True)


def check_name(run: RunFolder) -> None:
    """Refuses a folder whose path is not valid Unicode, because reports and results contain it.

    Raises:
        UsageError: it is not.
    """
    check_unicode(os.path.abspath(run.root), "--out")


def check_config(config: Config) -> None:
    """Refuses a config that cannot be run by `acorn pretrain`, before anything is written."""
    check_address_space("training", config.train.threads)
    check_is_pretraining(config)
    check_length(config)
    if not (config.data.source or config.data.shards):
        raise UsageError(
            "No text is named.",
            where="data.source",
            fix="name some, for example 'data.source=my_corpus/*.txt' or data.source=bundled:wikitext-2",
        )
    check_launch()


def check_is_pretraining(config: Config, where: str = "finetune.*, lora.*") -> None:
    """Refuses settings of finetuning.

    Raises:
        UsageError: there are some.
    """
    if not config.trains_on_text:
        raise UsageError(
            "These are settings of finetuning, which acorn pretrain does not do.",
            where=where,
            fix="use acorn finetune, or leave them out",
        )


def check_length(config: Config) -> None:
    """Refuses a config that sets neither steps nor minutes."""
    if not (config.train.steps or config.train.minutes):
        raise UsageError("The run has no length.", where="train.steps, train.minutes", fix="set one of them")


def check_launch() -> None:
    """Refuses a launch of several processes."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(
            "Several processes were launched, but this version of acorn trains in one process.",
            where="WORLD_SIZE",
            fix="start acorn without torchrun",
        )


def check_machine(config: Config, begun: Config | None = None, resuming: Callable[[str], str] | None = None) -> None:
    """Refuses a device or package that this machine does not have, before any text is read.

    Args:
        begun: if a run is resumed: its config before this command.
        resuming: if a run is resumed: adds a setting to the command that resumes it, and returns that command.

    Raises:
        UsageError: the device is unavailable.
        MissingPackageError: the package of a tracker is not installed.
    """
    check_packages(config.report.trackers)
    device = config.train.device
    if begun is not None and resuming is not None and begun.train.device == device and not is_available(device):
        commands = (resuming(f"train.device={other}") for other in available_devices())
        raise UsageError(
            f"The run started on {device}, which is unavailable here.",
            where="train.device of the run (auto keeps it)",
            fix=f"resume it on a machine with {device}; or here, no longer bit-identical: {', or '.join(commands)}",
        )
    check_device(device)


def check_fits(config: Config, run: RunFolder, initial: LoadedModel | None, folders: Sequence[Path] = ()) -> None:
    """Refuses a new run whose vocabulary size or disk is wrong, as far as is known before its text is read.

    Args:
        initial: the model that the run starts from.
        folders: where relative paths of `config` are looked up; by default the current folder.

    Raises:
        UsageError: `model.vocab_size` does not match the tokenizer.
        ResourceError: the disk has too little free space for the run's checkpoints.
        InputError, DamageError: the tokenizer or the prepared shards named cannot be used.
    """
    known = _known_vocab_size(config, run, initial, folders or [Path.cwd()])
    check_vocab_size(config, known, config.tokenizer.vocab_size if known is None else known)
    least = with_values(config, {"model.vocab_size": known or config.model.vocab_size or 1})
    check_disk(least, run.root)


def check_vocab_size(config: Config, known: int | None, most: int) -> None:
    """Refuses a model whose vocabulary size differs from the tokenizer's.

    Args:
        known: the vocabulary size of the tokenizer; None: it is not trained yet, and may get fewer entries than `most`.

    Raises:
        UsageError: with both numbers.
    """
    asked = config.model.vocab_size
    if asked > most or (known is not None and asked not in (0, known)):
        will_have = f"has {most:,}" if known is not None else f"will have at most {most:,}"
        raise UsageError(
            f"The model is set to {asked:,} vocabulary entries, but the tokenizer {will_have}.",
            where="model.vocab_size",
            fix="leave model.vocab_size out and set tokenizer.vocab_size instead",
        )


def _known_vocab_size(
    config: Config, run: RunFolder, initial: LoadedModel | None, folders: Sequence[Path]
) -> int | None:
    """Vocabulary size of an existing tokenizer; None if it has to be trained first."""
    if initial:
        return initial.tokenizer.vocab_size
    if config.data.shards:
        shards = TokenShards.open(shards_folder(run, config.data.shards))
        return int(shards.manifest["tokenizer"]["vocab_size"])
    if not config.tokenizer.path:
        return None
    return Tokenizer.from_file(first_there(config.tokenizer.path, folders)).vocab_size


def check_folder(run: RunFolder, resume: bool, *, trains_on_text: bool | None = None) -> None:
    """Refuses a folder that holds anything but a run to resume, or that cannot be written to.

    Args:
        trains_on_text: `Config.trains_on_text` of the new run; None: unknown, as the folder alone is named.

    Raises:
        UsageError: it is a file, or is not empty; with `resume`: it is a file, or is not empty and holds no run.
        ResourceError: it cannot be written to.
        InputError: reading it, or a file or folder in it, is not permitted.
    """
    if run.root.exists() and not run.root.is_dir():
        raise UsageError(f"{run.root} is a file, not a folder.", where="--out", fix="name another folder")
    check_readable(run.root)
    with disk_errors(run.root):
        if resume and run.root.exists():
            check_readable(*run.root.iterdir())
        is_run = _holds_run(run)
        if not (resume and is_run) and _holds_anything(run):
            raise UsageError(
                f"The folder {run.root} is not empty" + (": it holds a run." if is_run else " and holds no run."),
                where="--out",
                fix=_ways_out(run, trains_on_text) if is_run else "name another folder with --out",
            )
        make_folders(run.root)


def _ways_out(run: RunFolder, trains_on_text: bool | None) -> str:
    """What can be done about a folder that holds a run already."""
    other = "name another folder with --out to start a new run"
    with contextlib.suppress(AcornError):  # a damaged config is reported when the run is resumed
        if trains_on_text not in (None, load_run_config(run.config).trains_on_text):
            return other
    if readable(run.final).is_dir():
        return f"{other}; that run is finished, and --resume with more steps trains it further"
    return f"add --resume to resume that run, or {other}"


def _holds_run(run: RunFolder) -> bool:
    """Whether acorn started a run here. A file name alone does not show it: the file may be the user's own.

    A run writes its config first, so that it marks whatever a killed process leaves.
    """
    with contextlib.suppress(OSError):
        if os.path.isfile(run.config) and SEAL_LINE.encode() in run.config.read_bytes():
            return True
    if started_checkpoints(run):
        return True
    for path in (run.sources, run.evaluation, run.best):
        with contextlib.suppress(DamageError):
            if os.path.isfile(path):
                read_sealed_json(path)
                return True
    return False


def _holds_anything(run: RunFolder) -> bool:
    """Whether the folder has more than its lock and the half-written files of a run that was killed at its start."""
    if not run.root.exists():
        return False
    first = {path.name for path in (run.config, run.tokenizer, run.sources)}
    return any(entry != run.lock and half_written(entry.name) not in first for entry in run.root.iterdir())


def check_not_begun(run: RunFolder) -> None:
    """Refuses to start at step 1 in a folder whose files show that a run had got further.

    Raises:
        DamageError: there are files that only a run with a checkpoint writes.
    """
    shown = [path for path in (run.best, run.evaluation, readable(run.final)) if path.exists()]
    if shown:
        raise DamageError(
            f"The run's checkpoints are missing, but {shown[0].name} shows that there were some.",
            where=str(run.checkpoints),
            fix="restore them from a copy, or start a new run in another folder with --out",
        )
