"""Saving and tidying up: what a disk that fails, a kill or a signal in between may not change."""

from __future__ import annotations

from pathlib import Path

from tiny_checkpoints import CONFIG, Notes, network_of

from acorn.checkpoint.rotation import rotate_checkpoints
from acorn.checkpoint.training_state import Counters
from acorn.config_files import load_config
from acorn.errors import ResourceError
from acorn.files import read_sealed_json, write_sealed_json
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.train import saving
from acorn.train.logs import open_logs
from acorn.train.saving import Saver, last_on_schedule, tidy
from acorn.train.setup import Setup


def test_last_on_schedule() -> None:
    """By hand."""
    assert last_on_schedule(CONFIG, 9, None) == 0
    assert last_on_schedule(CONFIG, 10, None) == 10
    assert last_on_schedule(CONFIG, 29, 25) == 25
    assert last_on_schedule(CONFIG, 31, 25) == 30
    only_at_the_end = load_config("small", ["train.steps=40", "train.save_every=0"])
    assert last_on_schedule(only_at_the_end, 39, None) == 0


def test_a_checkpoint_saved_on_a_signal_does_not_count(saved) -> None:
    """An interrupted and an uninterrupted run keep the same checkpoints."""
    saved(10, 20)
    run = saved(25, scheduled=False)
    assert rotate_checkpoints(run, 25, keep=2) == []  # the newest is always kept
    saved(30)
    assert rotate_checkpoints(run, 30, keep=2) == [10, 25]
    assert run.checkpoint_steps() == [20, 30]


def test_with_too_few_scheduled_checkpoints_others_are_kept(saved) -> None:
    saved(10)
    run = saved(21, 25, scheduled=False)
    saved(30)
    assert rotate_checkpoints(run, 30, keep=3) == [21]


def test_folders_that_only_look_like_leftovers_are_kept(saved) -> None:
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


def test_a_folder_of_a_later_step_does_not_stop_the_rotation(saved) -> None:
    """Damaged or foreign, it is left alone, and does not count as the newest checkpoint."""
    run = saved(10, 20, 30)
    run.checkpoint(999).mkdir()
    assert rotate_checkpoints(run, 30, keep=1) == [10, 20]
    assert run.checkpoint_steps() == [30, 999]


def test_tidy_after_a_kill(saved) -> None:
    """A kill right after a save leaves the old best.json, and one checkpoint too many."""
    run = saved(10, 20, 30)
    write_sealed_json(run.best, {"step": 10, "loss": 3.0})
    config = load_config("small", ["train.steps=40", "train.save_every=10", "checkpoint.keep=1"])
    tidy(run, config, Counters(step=30, best_step=20, best_loss=2.5), Notes().note)
    assert read_sealed_json(run.best) == {"step": 20, "loss": 2.5}
    assert run.checkpoint_steps() == [20, 30]


def test_a_missing_best_checkpoint_is_not_named(saved) -> None:
    run = saved(10)
    write_sealed_json(run.best, {"step": 8, "loss": 3.0})
    tidy(run, CONFIG, Counters(step=10, best_step=8, best_loss=3.0), Notes().note)
    assert not run.best.exists()


def test_a_rollback_cancels_the_retry(tmp_path: Path, monkeypatch) -> None:
    """Else the run would save where an uninterrupted one does not."""
    run, notes = RunFolder(tmp_path), Notes()

    def fail(path: Path, *arguments) -> None:
        raise ResourceError("The disk is full.", where=str(path))

    monkeypatch.setattr(saving, "save_checkpoint", fail)
    setup = Setup(run, CONFIG, Runtime("cpu", "fp32", False, 1, True), {}, "acorn pretrain --resume", 1.0)
    with open_logs(run, CONFIG, Counters(), notes, notes.note) as logs:
        saver = Saver(setup, network_of(0), "{}", logs)
        assert saver.save(Counters(step=10), scheduled=True, can_wait=True) is False
        assert [saver.has_to_retry(step) for step in (10, 11, 12)] == [False, True, True]
        saver.forget_failures()
        assert not saver.has_to_retry(12)
        for step in (12, 13, 15):  # again, three failures are retried
            assert saver.save(Counters(step=step), scheduled=False, can_wait=True) is False
    assert [text.split("Retrying at ")[1].split(";")[0] for text in notes.texts] == [
        "step 11",
        "step 13",
        "step 15",
        "step 19",
    ]


def test_a_folder_that_cannot_be_removed_is_reported(saved, monkeypatch) -> None:
    run, notes = saved(10, 20, 30), Notes()

    def fail(*arguments, **options) -> None:
        raise ResourceError("The disk refuses.", where="there")

    monkeypatch.setattr(saving, "rotate_checkpoints", fail)
    tidy(run, CONFIG, Counters(step=30), notes.note)
    assert ["The disk refuses." in text for text in notes.texts] == [True]
