"""Rollback of a run to a checkpoint after a divergence."""

from __future__ import annotations

from pathlib import Path

from acorn.checkpoint.integrity import checkpoint_faults, newest_whole_checkpoint
from acorn.checkpoint.rotation import remove_checkpoints
from acorn.checkpoint.training_state import Counters, read_checkpoint, restore
from acorn.config import Config
from acorn.errors import AcornError
from acorn.folders import readable
from acorn.progress import Progress
from acorn.run_folder import RunFolder, step_of
from acorn.train.network import Network
from acorn.train.saving import last_on_schedule
from acorn.train.step import initial_counters


def go_back(run: RunFolder, config: Config, network: Network, counters: Counters, progress: Progress) -> Counters:
    """Restores the network to the checkpoint that an uninterrupted run would restore, and returns its counters.

    That is the last checkpoint saved on schedule, or the initial weights if there is none yet; if it is missing or
    damaged, the newest intact one. A checkpoint saved in between because of a signal is ignored and removed, so that
    stopping a run does not change its results. If the initial weights come from a model that no longer exists, the
    newest checkpoint is used instead.

    Args:
        counters: the current ones; they are not changed.

    Raises:
        DamageError: there are checkpoints, but none is intact.
        AcornError: from `network.begin`, if there is no checkpoint either.
    """
    step = last_on_schedule(config, counters.step - 1, counters.best_step)
    path = readable(run.checkpoint(step))
    expected = not step or (path.is_dir() and not checkpoint_faults(path))
    if not expected:
        path, step = _newest(run, progress) or (path, 0)
    if not step:
        try:
            network.begin()
        except AcornError:
            newest = _newest(run, progress)
            if newest is None:
                raise
            (path, step), expected = newest, False
    remove_checkpoints(run, [newer for newer in run.checkpoint_steps() if newer > step])
    if not step:
        for optimizer in network.optimizers:
            optimizer.state.clear()
        found = initial_counters(config.train.steps, config.train.precision)
    else:
        checkpoint = read_checkpoint(path)
        restore(network.model, network.optimizers, checkpoint)
        found = checkpoint.counters
    found.schedule_steps = counters.schedule_steps
    found.undisturbed = found.undisturbed and counters.undisturbed and expected
    return found


def _newest(run: RunFolder, progress: Progress) -> tuple[Path, int] | None:
    """The newest intact checkpoint and its step."""
    newest = newest_whole_checkpoint(run, progress)
    step = step_of(newest.name, exact=False) if newest else None
    return (newest, step) if newest and step is not None else None
