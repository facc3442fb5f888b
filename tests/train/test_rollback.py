"""Going back: to where a run goes that nothing disturbed."""

from __future__ import annotations

import torch
from tiny_checkpoints import CONFIG, Notes, network_of, weight_of

from acorn.checkpoint.training_state import Counters
from acorn.run_folder import RunFolder
from acorn.train.rollback import go_back


def back(run: RunFolder, step: int, best_step: int | None = None, **counters) -> tuple[Counters, torch.Tensor]:
    """Goes back from `step`; the counters and a weight of where it comes to."""
    network = network_of(999)
    now = Counters(step=step, best_step=best_step, schedule_steps=40, **counters)
    found = go_back(run, CONFIG, network, now, Notes())
    return found, network.model.head.weight.detach().clone()


def test_going_back_passes_over_what_a_signal_saved(saved) -> None:
    """An undisturbed run has no checkpoint of step 13, so nobody may go back to it; nor may it be found later."""
    saved(10)
    run = saved(13, scheduled=False)
    found, weight = back(run, 17)
    assert (found.step, found.undisturbed) == (10, True)
    assert torch.equal(weight, weight_of(10))
    assert run.checkpoint_steps() == [10]


def test_going_back_to_a_best_one_between_the_intervals(saved) -> None:
    run = saved(10, 15)
    assert back(run, 17, best_step=15)[0].step == 15


def test_going_back_before_the_first_save_is_to_the_beginning(saved) -> None:
    """Also past what a signal saved; and the length of the schedule is not forgotten."""
    run = saved(7, scheduled=False)
    found, weight = back(run, 9)
    assert (found.step, found.schedule_steps, found.undisturbed) == (0, 40, True)
    assert torch.equal(weight, weight_of(CONFIG.train.seed))
    assert run.checkpoint_steps() == []


def test_going_back_where_the_expected_one_is_gone(saved) -> None:
    """A full disk kept step 20 from being saved, and 22 was: better that than 10; but no undisturbed run does it."""
    saved(10)
    run = saved(22, scheduled=False)
    found, _ = back(run, 25)
    assert (found.step, found.undisturbed) == (22, False)


def test_going_back_does_not_forget_a_disturbance(saved) -> None:
    run = saved(10)
    assert back(run, 17, undisturbed=False)[0].undisturbed is False
