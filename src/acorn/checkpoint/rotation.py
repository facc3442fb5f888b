"""Which checkpoints stay."""

from __future__ import annotations

import os
import shutil

from acorn.files import sync_folder, verify_folder
from acorn.run_folder import RunFolder

REMOVED_PREFIX = "removed-"


def rotate_checkpoints(run: RunFolder, *, keep: int, best_step: int | None) -> list[int]:
    """Removes all but the newest `keep` checkpoints and the best one, once the newest has passed its check.

    A folder is renamed before it is emptied, so that what a kill leaves behind does not look like a checkpoint.

    Returns:
        the steps removed; none if the newest is not whole.
    """
    steps = run.checkpoint_steps()
    if not steps or verify_folder(run.checkpoint(steps[-1])):
        return []
    removed = [step for step in steps[:-keep] if step != best_step]
    for step in removed:
        path = run.checkpoint(step)
        os.replace(path, path.with_name(REMOVED_PREFIX + path.name))
    for leftover in run.checkpoints.glob(REMOVED_PREFIX + "*"):
        shutil.rmtree(leftover)
    if removed:
        sync_folder(run.checkpoints)
    return removed
