"""What must hold before a run starts, and its folder as an interrupted process may have left it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from acorn.checkpoint.integrity import started_checkpoints
from acorn.config import Config
from acorn.errors import DamageError, UsageError
from acorn.files import disk_errors, make_folders, remove_temporary_files
from acorn.folders import readable, settle
from acorn.run_folder import RunFolder


def clear_leftovers(run: RunFolder) -> None:
    """Finishes or removes what an interrupted process was in the middle of. Only the holder of the lock may."""
    with disk_errors(run.root):
        for folder in (run.root, run.checkpoints):
            remove_temporary_files(folder)
        for step in started_checkpoints(run):
            settle(run.checkpoint(step))


@contextlib.contextmanager
def nothing_left_behind(run: RunFolder) -> Iterator[None]:
    """Removes the run folder again if an error came before anything was written into it."""
    try:
        yield
    except BaseException:
        if [entry.name for entry in run.root.iterdir()] == [run.lock.name]:
            run.lock.unlink()
            with contextlib.suppress(OSError):  # such as on systems that keep an open file's folder
                run.root.rmdir()
        raise


def check_config(config: Config) -> None:
    """Refuses what no run can be made of, before anything is touched."""
    if not (config.train.steps or config.train.minutes):
        raise UsageError("The run has no length.", where="train.steps, train.minutes", mend="set one of them")
    if not (config.data.source or config.data.shards):
        raise UsageError(
            "No text is named.",
            where="data.source",
            mend="name some, such as 'data.source=my_corpus/*.txt' or data.source=bundled:wikitext-2",
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(
            "Several processes were launched; this version trains in one.",
            where="WORLD_SIZE",
            mend="start acorn without torchrun",
        )


def check_folder(run: RunFolder, resume: bool) -> None:
    """Refuses a folder that holds something already, and one that cannot be written."""
    if run.root.exists() and not run.root.is_dir():
        raise UsageError(f"{run.root} is a file, not a folder.", where="--out", mend="name another folder")
    if not resume and run.root.exists() and any(entry != run.lock for entry in run.root.iterdir()):
        is_run = run.config.exists() or run.checkpoints.exists()
        raise UsageError(
            f"The folder {run.root} is not empty" + ("." if is_run else ", and holds no run."),
            where="--out",
            mend=("go on with that run by adding --resume, or " if is_run else "") + "name another folder with --out",
        )
    with disk_errors(run.root):
        make_folders(run.root)


def check_not_begun(run: RunFolder) -> None:
    """Refuses to begin at step 1 in a folder that shows that a run had got further.

    Raises:
        DamageError: there is what only a run with a checkpoint leaves.
    """
    shown = [path for path in (run.best, run.evaluation, readable(run.final)) if path.exists()]
    if shown:
        raise DamageError(
            f"The run's checkpoints are gone, though {shown[0].name} shows that there were some.",
            where=str(run.checkpoints),
            mend="put them back from a copy, or train anew in another folder with --out",
        )
