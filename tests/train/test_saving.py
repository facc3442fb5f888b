"""Saving, tidying up and going back: what a disk that fails, a kill or a signal in between may not change."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from acorn.checkpoint.rotation import rotate_checkpoints
from acorn.checkpoint.training_state import Counters, save_checkpoint
from acorn.config import Config
from acorn.config_files import load_config
from acorn.errors import DivergedError, ResourceError
from acorn.files import read_sealed_json, write_sealed_json
from acorn.model.gpt import GPT
from acorn.report.metrics_log import read_metrics
from acorn.run_folder import RunFolder
from acorn.train import loop as loop_module
from acorn.train import saving
from acorn.train.optimizer import build_optimizers
from acorn.train.saving import go_back, last_on_schedule, tidy, weights_are_finite
from acorn.train.watcher import Unwatched

CONFIG = load_config(
    "small",
    [
        "train.steps=40",
        "train.save_every=10",
        "model.n_layer=1",
        "model.n_embd=16",
        "model.vocab_size=280",
        "model.tied=false",
        "train.init=bigrams",
    ],
)


class Notes(Unwatched):
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None: ...

    def end(self, task: str) -> None: ...


@pytest.fixture
def saved(tmp_path: Path):
    """Saves checkpoints of a tiny model; each step has weights of its own."""
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)

    def save(*steps: int, scheduled: bool = True, config: Config = CONFIG, **counters) -> RunFolder:
        for step in steps:
            model = GPT(config.model)
            model.init_weights(step)
            values = Counters(step=step, samples=step, tokens=step, scheduled=scheduled, **counters)
            optimizers = build_optimizers(model, config.optimizer, muon_dtype=torch.float32)
            save_checkpoint(run.checkpoint(step), config, "{}", model, optimizers, values, {})
        return run

    return save


def back(run: RunFolder, step: int, best_step: int | None = None, **counters) -> tuple[Counters, torch.Tensor]:
    """Goes back from `step`; the counters and a weight of where it comes to."""
    model = GPT(CONFIG.model)
    model.init_weights(999)
    optimizers = build_optimizers(model, CONFIG.optimizer, muon_dtype=torch.float32)
    now = Counters(step=step, best_step=best_step, schedule_steps=40, **counters)
    found = go_back(run, CONFIG, model, optimizers, now, lambda: model.init_weights(CONFIG.train.seed), Notes())
    return found, model.head.weight.detach().clone()


def weight_of(seed: int) -> torch.Tensor:
    model = GPT(CONFIG.model)
    model.init_weights(seed)
    return model.head.weight.detach()


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


def test_what_is_on_schedule() -> None:
    """By hand."""
    assert last_on_schedule(CONFIG, 9, None) == 0
    assert last_on_schedule(CONFIG, 10, None) == 10
    assert last_on_schedule(CONFIG, 29, 25) == 25
    assert last_on_schedule(CONFIG, 31, 25) == 30
    only_at_the_end = load_config("small", ["train.steps=40", "train.save_every=0"])
    assert last_on_schedule(only_at_the_end, 39, None) == 0


def test_a_stops_checkpoint_does_not_count(saved) -> None:
    """Stopped or not, the same ones are kept in the end."""
    saved(10, 20)
    run = saved(25, scheduled=False)
    assert rotate_checkpoints(run, 25, keep=2) == []  # the newest stays, whoever caused it
    saved(30)
    assert rotate_checkpoints(run, 30, keep=2) == [10, 25]
    assert run.checkpoint_steps() == [20, 30]


def test_too_few_scheduled_ones_are_made_up_for(saved) -> None:
    saved(10)
    run = saved(21, 25, scheduled=False)
    saved(30)
    assert rotate_checkpoints(run, 30, keep=3) == [21]


def test_folders_that_only_look_like_leftovers_stay(saved) -> None:
    run = saved(10, 20, 30)
    (run.checkpoints / "removed-mine").mkdir()
    (run.checkpoints / "removed-step-00000010").mkdir()  # an interrupted removal of an earlier step 10
    (run.checkpoints / "removed-step-00000010" / "state.json").touch()
    assert rotate_checkpoints(run, 30, keep=2) == [10]
    assert sorted(entry.name for entry in run.checkpoints.iterdir()) == [
        "removed-mine",
        "step-00000020",
        "step-00000030",
    ]


def test_a_folder_that_claims_to_be_later_does_not_stop_the_rotation(saved) -> None:
    """Torn, or nobody knows whose: it is left alone, and so is what it would have kept from being removed."""
    run = saved(10, 20, 30)
    run.checkpoint(999).mkdir()
    assert rotate_checkpoints(run, 30, keep=1) == [10, 20]
    assert run.checkpoint_steps() == [30, 999]


def test_tidying_up_after_a_kill(saved) -> None:
    """What a kill right after a save leaves: best.json of before, and one checkpoint too many."""
    run = saved(10, 20, 30)
    write_sealed_json(run.best, {"step": 10, "loss": 3.0})
    config = load_config("small", ["train.steps=40", "train.save_every=10", "checkpoint.keep=1"])
    tidy(run, config, Counters(step=30, best_step=20, best_loss=2.5), Notes().note)
    assert read_sealed_json(run.best) == {"step": 20, "loss": 2.5}
    assert run.checkpoint_steps() == [20, 30]


def test_a_best_one_that_is_gone_is_not_named(saved) -> None:
    run = saved(10)
    write_sealed_json(run.best, {"step": 8, "loss": 3.0})
    tidy(run, CONFIG, Counters(step=10, best_step=8, best_loss=3.0), Notes().note)
    assert not run.best.exists()


def test_a_folder_that_cannot_be_removed_is_only_noted(saved, monkeypatch) -> None:
    run, notes = saved(10, 20, 30), Notes()

    def fail(*arguments, **options) -> None:
        raise ResourceError("The disk refuses.", where="there")

    monkeypatch.setattr(saving, "rotate_checkpoints", fail)
    tidy(run, CONFIG, Counters(step=30), notes.note)
    assert ["The disk refuses." in text for text in notes.texts] == [True]


def test_weights_are_looked_at_whole() -> None:
    model = GPT(CONFIG.model)
    model.init_weights(0)
    assert weights_are_finite(model)
    for bad in (math.nan, math.inf):
        with torch.no_grad():
            model.blocks[0].mlp.up_proj.weight[3, 5] = bad
        assert not weights_are_finite(model)


def test_weights_that_overflowed_are_never_saved(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """An update can overflow though its gradient was finite; its checkpoint would be the one to roll back to."""
    real = loop_module.train_step

    def overflowing(model, *arguments, counters: Counters, **options):
        result = real(model, *arguments, counters=counters, **options)
        if counters.step == 9 and not counters.rollbacks:
            with torch.no_grad():
                model.head.weight[0, 0] = math.inf
        return result

    monkeypatch.setattr(loop_module, "train_step", overflowing)
    notes = Notes()
    run_tiny(tmp_path / "run", "train.eval_every=0", "train.sample_every=0", watcher=notes)
    assert any("weights that are not finite): rolled back to step 5" in text for text in notes.texts)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records if record["split"] == "train"] == list(range(1, 13))
    monkeypatch.setattr(loop_module, "weights_are_finite", lambda model: False)
    with pytest.raises(DivergedError, match="the last update left weights that are not finite, after 3 rollbacks"):
        run_tiny(tmp_path / "other", "train.eval_every=0")


def test_a_validation_that_is_not_finite_is_never_the_best(tmp_path: Path, run_tiny, monkeypatch) -> None:
    losses = iter([math.nan, 5.0, math.inf])
    monkeypatch.setattr(loop_module, "score", lambda *arguments, **options: (next(losses), 1))
    run_tiny(tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert read_sealed_json(run.best) == {"step": 8, "loss": 5.0}
    state = json.loads((run.checkpoint(12) / "state.json").read_text())["counters"]
    assert (state["valid_loss"], state["valid_step"]) == (None, 12)


def test_the_best_is_one_that_could_be_saved(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """Validation is best at step 8, whose save fails; the retry at 9 is of other weights. The best stays step 4."""
    losses = iter([6.0, 5.0, 7.0])
    monkeypatch.setattr(loop_module, "score", lambda *arguments, **options: (next(losses), 1))
    real = saving.save_checkpoint

    def failing(path: Path, *arguments) -> None:
        if path.name == "step-00000008":
            raise ResourceError("The disk is full.", where=str(path))
        real(path, *arguments)

    monkeypatch.setattr(saving, "save_checkpoint", failing)
    notes = Notes()
    run_tiny(tmp_path / "run", "checkpoint.final=best", watcher=notes)
    run = RunFolder(tmp_path / "run")
    assert any("Trying again at step 9; the checkpoint of step 5 still stands." in text for text in notes.texts)
    assert read_sealed_json(run.best) == {"step": 4, "loss": 6.0}
    assert read_sealed_json(run.evaluation)["weights_of_step"] == 4
    assert json.loads((run.checkpoint(12) / "state.json").read_text())["counters"]["undisturbed"] is False
