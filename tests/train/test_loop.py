"""The loop: which validation is the best. Whole runs are in tests/run/test_pretrain.py."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
from tiny_checkpoints import Notes

from acorn.errors import ResourceError, StoppedError
from acorn.files import read_sealed_json
from acorn.report.metrics_log import read_metrics, read_samples
from acorn.run_folder import RunFolder
from acorn.train import saving, windows
from acorn.train.training_data import Score


def test_a_non_finite_validation_is_never_the_best(tmp_path: Path, run_tiny, monkeypatch) -> None:
    losses = iter([math.nan, 5.0, math.inf])
    monkeypatch.setattr(windows, "score", lambda *arguments, **options: (next(losses), 1))
    run_tiny(tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert read_sealed_json(run.best) == {"step": 8, "loss": 5.0}
    state = json.loads((run.checkpoint(12) / "state.json").read_text())["counters"]
    assert (state["valid_loss"], state["valid_step"]) == (None, 12)


def test_the_best_is_a_saved_one(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """Step 8 has the best validation, but its save fails; the retry at 9 has other weights. The best stays step 4."""
    losses = iter([6.0, 5.0, 7.0])
    monkeypatch.setattr(windows, "score", lambda *arguments, **options: (next(losses), 1))
    real = saving.save_checkpoint

    def failing(path: Path, *arguments) -> None:
        if path.name == "step-00000008":
            raise ResourceError("The disk is full.", where=str(path))
        real(path, *arguments)

    monkeypatch.setattr(saving, "save_checkpoint", failing)
    notes = Notes()
    run_tiny(tmp_path / "run", "checkpoint.final=best", watcher=notes)
    run = RunFolder(tmp_path / "run")
    assert any("Retrying at step 9; the checkpoint of step 5 is intact." in text for text in notes.texts)
    assert read_sealed_json(run.best) == {"step": 4, "loss": 6.0}
    assert read_sealed_json(run.evaluation)["weights_of_step"] == 4
    assert json.loads((run.checkpoint(12) / "state.json").read_text())["counters"]["undisturbed"] is False


def test_a_score_may_have_further_figures(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """Such as an accuracy; they stand in metrics.jsonl beside the loss. A data set may draw no samples."""
    score = Score(10.0, 4, {"accuracy": 0.25})
    monkeypatch.setattr(windows.Windows, "score", lambda *arguments: score)
    monkeypatch.setattr(windows.Windows, "samples", lambda *arguments: [])
    run_tiny(tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    records = [record for record in read_metrics(run.metrics) if record["split"] == "valid"]
    assert [(record["step"], record["loss"], record["accuracy"]) for record in records] == [
        (4, 2.5, 0.25),
        (8, 2.5, 0.25),
        (12, 2.5, 0.25),
    ]
    assert read_samples(run.samples) == []


@pytest.mark.parametrize("step", [6, 12], ids=["while it trains", "at its end"])
def test_a_signal_while_a_sample_is_generated(tmp_path: Path, run_tiny, monkeypatch, step: int) -> None:
    """Fault 36: the run stops at the next token; on resume the sample is generated, and is the same."""
    run_tiny(tmp_path / "whole")
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    real, asked, at = windows.generate, [], 3 if step == 6 else 8 + 3

    def draw(*arguments, before_token, **options):
        def interrupted() -> None:
            asked.append(True)
            if len(asked) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            before_token()

        return real(*arguments, before_token=interrupted, **options)

    monkeypatch.setattr(windows, "generate", draw)
    with pytest.raises(StoppedError) as caught:
        run_tiny(run.root)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert at <= len(asked) <= at + 1  # at the end of a run it is checked once more
    assert run.checkpoint(step).is_dir()
    assert [sample["step"] for sample in read_samples(run.samples)] == ([] if step == 6 else [6])
    monkeypatch.setattr(windows, "generate", real)
    run_tiny(run.root, resume=True)
    assert read_samples(run.samples) == read_samples(whole.samples)
    assert run.evaluation.read_bytes() == whole.evaluation.read_bytes()
