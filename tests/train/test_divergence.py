"""The reaction to divergence. Whole runs that diverge are in tests/faults."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import CONFIG, Notes, network_of, weight_of

from acorn.checkpoint.training_state import Counters
from acorn.errors import DivergedError
from acorn.report.metrics_log import JsonLines, read_metrics
from acorn.report.trackers import Trackers
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.train import divergence
from acorn.train import loop as loop_module
from acorn.train.divergence import SPIKE_WINDOW, DivergenceGuard, weights_are_finite
from acorn.train.logs import Logs
from acorn.train.setup import Setup
from acorn.train.step import StepResult

SKIPPED = StepResult(math.nan, math.nan, updated=False, diverged=True)
OVERFLOW = StepResult(math.inf, math.inf, updated=False, diverged=False)


def step_of(loss: float) -> StepResult:
    return StepResult(loss, 1.0, updated=True, diverged=False)


@pytest.fixture
def guard(tmp_path: Path):
    """A guard of a tiny network, and its notes."""
    run, notes = RunFolder(tmp_path / "run"), Notes()
    logs = Logs(JsonLines(run.metrics), JsonLines(run.samples), Trackers({}, notes.note), notes)
    setup = Setup(run, CONFIG, Runtime("cpu", "fp32", False, 1, True), {}, "acorn pretrain --resume", 1.0)
    yield DivergenceGuard(setup, network_of(999), logs, notes), notes.texts
    logs.metrics.close()
    logs.samples.close()


def counters_at(step: int, **values) -> Counters:
    return Counters(step=step, samples=step * CONFIG.train.batch_size, **values)


def test_a_loss_spike_is_relative_to_the_median(guard) -> None:
    """The median of 50 losses, one of which is a spike: 1.5 times 2 is the limit. Fewer losses are not enough."""
    guard, notes = guard
    for step, loss in enumerate([2.0] * (SPIKE_WINDOW - 2) + [9.0, 2.0, 2.9, 3.1], start=1):
        assert guard.fault_of_step(step_of(loss), counters_at(step)) is None
    size = CONFIG.train.batch_size
    last = SPIKE_WINDOW + 2
    assert notes == [f"step {last}: loss spike: 3.100 (samples {(last - 1) * size:,} to {last * size - 1:,})."]


def test_losses_near_zero_may_vary(guard) -> None:
    """At the end of finetuning the losses of batches differ by factors, which is no spike; a loss of 1.5 is one."""
    guard, notes = guard
    for step, loss in enumerate([0.05, 0.2] * (SPIKE_WINDOW // 2) + [0.9, 1.5], start=1):
        assert guard.fault_of_step(step_of(loss), counters_at(step)) is None
    assert [note.partition(" (")[0] for note in notes] == [f"step {SPIKE_WINDOW + 2}: loss spike: 1.500"]


def test_only_too_many_consecutive_skips_are_a_fault(guard) -> None:
    """An fp16 overflow is not counted, and a successful step resets the count."""
    guard, notes = guard
    counters, most = counters_at(20), CONFIG.train.max_skips
    for result in [*[SKIPPED] * most, step_of(2.0), *[SKIPPED] * most, OVERFLOW, *[SKIPPED] * most]:
        assert guard.fault_of_step(result, counters) is None
    assert counters.skips == most
    assert guard.fault_of_step(SKIPPED, counters) == f"{most + 1} steps in a row were not finite"
    assert sum("not finite" in note for note in notes) == 3 * most + 1
    assert sum("fp16 overflow" in note for note in notes) == 1


def test_a_rollback_restores_weights_counters_and_logs(guard, saved) -> None:
    """But not the number of rollbacks nor the time; and it clears the losses that define a spike."""
    guard, notes = guard
    guard.logs.metrics.write({"step": 10, "split": "train", "loss": 3.0})
    saved(10, metrics_bytes=guard.logs.metrics.length)
    guard.logs.metrics.write({"step": 11, "split": "train", "loss": 9.0})
    for step in range(SPIKE_WINDOW):
        guard.fault_of_step(step_of(2.0), counters_at(step + 1))
    counters = counters_at(17, skips=4, seconds=60.0, rollbacks=1, schedule_steps=40)
    guard.roll_back("a reason", counters)
    assert (counters.step, counters.samples) == (10, 10)
    assert (counters.rollbacks, counters.skips, counters.seconds) == (2, 0, 60.0)
    assert torch.equal(guard.network.model.head.weight, weight_of(10))
    assert [record["step"] for record in read_metrics(guard.setup.run.metrics)] == [10]
    size = CONFIG.train.batch_size
    assert notes == [
        f"Training diverged at step 17, samples {16 * size:,} to {17 * size - 1:,} (a reason): rolled back to step 10 "
        f"(rollback 2 of {CONFIG.train.max_rollbacks}), with another sample order."
    ]
    guard.fault_of_step(step_of(1000.0), counters)
    assert len(notes) == 1


def test_after_the_last_rollback_nothing_changes(guard, saved) -> None:
    guard, _ = guard
    saved(10)
    counters = counters_at(17, rollbacks=CONFIG.train.max_rollbacks)
    with pytest.raises(DivergedError, match="Training diverged: a reason, after 3 rollbacks") as caught:
        guard.roll_back("a reason", counters)
    assert caught.value.fix.endswith("the checkpoint of step 10 is intact")
    assert counters == counters_at(17, rollbacks=CONFIG.train.max_rollbacks)
    assert torch.equal(guard.network.model.head.weight, weight_of(999))


def test_all_weights_are_checked() -> None:
    model = network_of(0).model
    assert weights_are_finite(model)
    for bad in (math.nan, math.inf):
        with torch.no_grad():
            model.blocks[0].mlp.up_proj.weight[3, 5] = bad
        assert not weights_are_finite(model)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """An update can overflow even if its gradient was finite; a later rollback would restore its checkpoint."""
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
    monkeypatch.setattr(divergence, "weights_are_finite", lambda model: False)
    with pytest.raises(DivergedError, match="the last update left weights that are not finite, after 3 rollbacks"):
        run_tiny(tmp_path / "other", "train.eval_every=0")
