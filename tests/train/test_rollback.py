"""Rollback to the state that an uninterrupted run would restore."""

from __future__ import annotations

import torch
from tiny_checkpoints import CONFIG, Notes, network_of, weight_of

from acorn.checkpoint.training_state import Counters
from acorn.run_folder import RunFolder
from acorn.train.rollback import go_back


def back(run: RunFolder, step: int, best_step: int | None = None, **counters) -> tuple[Counters, torch.Tensor]:
    """Rolls back from `step`; returns the restored counters and a weight."""
    network = network_of(999)
    now = Counters(step=step, best_step=best_step, schedule_steps=40, **counters)
    found = go_back(run, CONFIG, network, now, Notes())
    return found, network.model.head.weight.detach().clone()


def test_rollback_ignores_a_checkpoint_saved_on_a_signal(saved) -> None:
    """An uninterrupted run has no checkpoint of step 13, so it is not restored, and is removed."""
    saved(10)
    run = saved(13, scheduled=False)
    found, weight = back(run, 17)
    assert (found.step, found.undisturbed) == (10, True)
    assert torch.equal(weight, weight_of(10))
    assert run.checkpoint_steps() == [10]


def test_rollback_to_a_best_checkpoint_between_the_intervals(saved) -> None:
    run = saved(10, 15)
    assert back(run, 17, best_step=15)[0].step == 15


def test_rollback_before_the_first_save_restores_the_initial_weights(saved) -> None:
    """Also if a signal saved a checkpoint; and the length of the schedule is kept."""
    run = saved(7, scheduled=False)
    found, weight = back(run, 9)
    assert (found.step, found.schedule_steps, found.undisturbed) == (0, 40, True)
    assert torch.equal(weight, weight_of(CONFIG.train.seed))
    assert run.checkpoint_steps() == []


def test_rollback_without_the_expected_checkpoint(saved) -> None:
    """On a full disk step 20 was not saved, but 22 was: it is restored instead of 10, and the run is marked as
    disturbed."""
    saved(10)
    run = saved(22, scheduled=False)
    found, _ = back(run, 25)
    assert (found.step, found.undisturbed) == (22, False)


def test_rollback_keeps_the_mark_of_a_disturbed_run(saved) -> None:
    run = saved(10)
    assert back(run, 17, undisturbed=False)[0].undisturbed is False
