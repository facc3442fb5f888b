"""Removes old checkpoints."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from acorn.errors import DamageError
from acorn.files import disk_errors, read_json, sync_folder
from acorn.folders import remove_folder, verify_folder
from acorn.run_folder import STATE, RunFolder, step_of

REMOVED_PREFIX = "removed-"


def rotate_checkpoints(run: RunFolder, newest: int, *, keep: int, also: Collection[int | None] = ()) -> list[int]:
    """Removes all but the newest `keep` checkpoints up to `newest`, if `newest` passes its check.

    A checkpoint outside the schedule (saved because of a signal or a full disk) is kept only while it is the newest or
    while there are fewer than `keep` others, so that an interrupted run ends with the same checkpoints as an
    uninterrupted one.

    A folder is renamed before its files are removed, so that after a kill no incomplete checkpoint is left.

    Args:
        newest: the step that was just saved or resumed from; later checkpoints are not touched.
        also: more steps to keep, such as the best one.

    Returns:
        the removed steps; empty if `newest` is damaged.

    Raises:
        ResourceError: a folder cannot be renamed or removed. Kept checkpoints are intact.
    """
    with disk_errors(run.checkpoints):
        steps = [step for step in run.checkpoint_steps() if step <= newest]
        if newest not in steps or verify_folder(run.checkpoint(newest)):
            return []
    by_worth = sorted(steps, key=lambda step: (_is_scheduled(run.checkpoint(step)), step))
    stay = {*by_worth[-keep:], *also, newest}
    removed = [step for step in steps if step not in stay]
    remove_checkpoints(run, removed)
    return removed


def remove_checkpoints(run: RunFolder, steps: Collection[int]) -> None:
    """Removes the checkpoints of `steps`, and leftovers of an interrupted removal.

    Raises:
        ResourceError: a folder cannot be renamed or removed.
    """
    with disk_errors(run.checkpoints):
        _remove_leftovers(run)
        for step in steps:
            path = run.checkpoint(step)
            os.replace(path, path.with_name(REMOVED_PREFIX + path.name))
        _remove_leftovers(run)


def _remove_leftovers(run: RunFolder) -> None:
    entries = run.checkpoints.iterdir() if run.checkpoints.is_dir() else ()
    leftovers = [entry for entry in entries if _is_leftover(entry.name)]
    if leftovers:
        sync_folder(run.checkpoints)  # otherwise a power loss might restore the names of emptied folders
    for leftover in leftovers:
        remove_folder(leftover)


def _is_leftover(name: str) -> bool:
    return name.startswith(REMOVED_PREFIX) and step_of(name.removeprefix(REMOVED_PREFIX)) is not None


def _is_scheduled(checkpoint: Path) -> bool:
    """Whether the schedule caused this checkpoint; a damaged one counts as scheduled, so that it replaces no other."""
    try:
        return read_json(checkpoint / STATE)["counters"]["scheduled"] is not False
    except (DamageError, KeyError, TypeError):
        return True
