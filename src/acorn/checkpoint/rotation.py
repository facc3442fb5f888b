"""Which checkpoints stay."""

from __future__ import annotations

import os

from acorn.files import disk_errors, sync_folder
from acorn.folders import remove_folder, verify_folder
from acorn.run_folder import STEP_FOLDER, RunFolder

REMOVED_PREFIX = "removed-"


def rotate_checkpoints(run: RunFolder, *, keep: int, best_step: int | None) -> list[int]:
    """Removes all but the newest `keep` checkpoints and the best one, once the newest has passed its check.

    A folder is renamed before it is emptied, so that what a kill leaves behind does not look like a checkpoint.

    Returns:
        the steps removed; none if the newest is not whole.

    Raises:
        ResourceError: a folder cannot be renamed or removed. Those to be kept still stand.
    """
    steps = run.checkpoint_steps()
    if not steps or verify_folder(run.checkpoint(steps[-1])):
        return []
    removed = [step for step in steps[:-keep] if step != best_step]
    with disk_errors(run.checkpoints):
        for step in removed:
            path = run.checkpoint(step)
            os.replace(path, path.with_name(REMOVED_PREFIX + path.name))
        leftovers = [entry for entry in run.checkpoints.iterdir() if _is_leftover(entry.name)]
        if leftovers:
            sync_folder(run.checkpoints)  # else a power loss might bring back the names of emptied folders
        for leftover in leftovers:
            remove_folder(leftover)
    return removed


def _is_leftover(name: str) -> bool:
    return name.startswith(REMOVED_PREFIX) and STEP_FOLDER.fullmatch(name.removeprefix(REMOVED_PREFIX)) is not None
