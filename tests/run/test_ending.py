"""The end of a run, for runs of another kind than pretraining; that of pretraining is in test_pretrain.py."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from acorn.errors import ResourceError, StoppedError
from acorn.files import read_sealed_json
from acorn.run import pretrain as pretrain_module
from acorn.run.ending import PretrainingEnding
from acorn.run.finish import is_finished
from acorn.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class EndingWithPredictions(PretrainingEnding):
    """A further file beside final/, and figures of its own."""

    def evaluate(self, model, progress):
        return {"test": {"accuracy": 0.5}}

    def write(self, run, model, evaluation, step, limits) -> None:
        super().write(run, model, {}, step, limits)
        (run.root / "predictions.jsonl").write_text(json.dumps({"step": step, "accuracy": evaluation["test"]}))

    @staticmethod
    def missing(run: RunFolder) -> list[str]:
        name = "predictions.jsonl"
        return [] if (run.root / name).exists() else [name]


def test_a_run_ends_as_its_ending_says(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """Its figures and files are written; without one of them the run is not finished, and resuming writes it again."""
    monkeypatch.setattr(pretrain_module, "PretrainingEnding", EndingWithPredictions)
    run_tiny(tmp_path / "run")
    run, missing = RunFolder(tmp_path / "run"), EndingWithPredictions.missing
    evaluation = read_sealed_json(run.evaluation)
    assert evaluation == {"step": 12, "weights_of_step": 12, "test": {"accuracy": 0.5}}
    predictions = run.root / "predictions.jsonl"
    assert json.loads(predictions.read_text()) == {"step": 12, "accuracy": {"accuracy": 0.5}}
    assert is_finished(run, 12, missing)
    assert not is_finished(run, 11, missing)
    assert run_tiny(run.root, resume=True).was_complete
    predictions.unlink()
    assert not is_finished(run, 12, missing)
    assert not run_tiny(run.root, resume=True).was_complete
    assert is_finished(run, 12, missing)


def test_messages_name_the_command_of_the_run(tmp_path: Path, run_tiny, monkeypatch) -> None:
    """Also where another command than `acorn pretrain` resumes it."""
    command = f"acorn finetune base --resume --out {tmp_path / 'run'}"
    monkeypatch.setattr(pretrain_module, "resume_command", lambda run, *more: command)
    from acorn.train import loop, saving

    def full(*arguments) -> None:
        raise ResourceError("The disk is full.", where="here", fix="free some space")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_checkpoint", full)
        with pytest.raises(ResourceError) as refused:
            run_tiny(tmp_path / "run")
    assert refused.value.fix == f"free some space; then resume with: {command}"

    def asked(self: loop.Loop) -> None:
        self._stop.signal_number = 15

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_tick", asked)
        with pytest.raises(StoppedError) as stopped:
            run_tiny(tmp_path / "run", resume=True)
    assert stopped.value.fix == f"resume with: {command}"
