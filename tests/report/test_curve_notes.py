from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from acorn.report.curve_notes import curve_notes
from acorn.report.metrics_log import JsonLines
from acorn.report.run_facts import read_run

MakeRun = Callable[..., Path]


def notes_of(run: Path) -> list[str]:
    return curve_notes(read_run(run))


def test_complete_validation_above_training_has_no_note(make_run: MakeRun) -> None:
    run = make_run(valid_every=0)
    metrics = JsonLines(run / "metrics.jsonl")
    metrics.write({"step": 60, "tokens": 15360, "split": "valid", "loss": 9.0})
    metrics.close()
    assert notes_of(run) == []


def test_a_curve_of_part_of_the_text_names_the_part(make_run: MakeRun) -> None:
    notes = notes_of(make_run(overrides=("train.eval_tokens=500",)))
    assert notes[0].startswith("Each validation while training scores the first 500 of 999 tokens (train.eval_tokens)")


def test_the_reasons_for_validation_below_training_apply_to_the_run(make_run: MakeRun) -> None:
    def below(name: str, *overrides: str) -> str:
        run = make_run(name, overrides=overrides)
        metrics = JsonLines(run / "metrics.jsonl")
        metrics.write({"step": 60, "tokens": 15360, "split": "valid", "loss": 1.0})
        metrics.close()
        return notes_of(run)[-1]

    plain = below("plain")
    assert plain.startswith("Validation loss ends below training loss")
    assert "dropout" not in plain
    assert "1.25 % of the distinct validation documents" in plain  # the overlap in the manifest
    told = below("told", "model.dropout=0.1", "schedule.short_context=16", "train.eval_tokens=500")
    assert "with dropout (0.1), validation loss without" in told
    assert "a context of 16 tokens, validation 32" in told
    assert "only its beginning is scored" in told


def test_the_note_on_a_rise_says_where_the_best_weights_are(make_run: MakeRun) -> None:
    """They are in final/, in a checkpoint, or no longer exist."""
    run = make_run()
    metrics = JsonLines(run / "metrics.jsonl")
    metrics.write({"step": 61, "tokens": 15616, "split": "valid", "loss": 3.0})
    metrics.close()
    assert "final/ has the last weights. More text" in notes_of(run)[0]
    (run / "checkpoints" / "step-00000060").mkdir(parents=True)
    assert "final/ has the last weights; the best are in checkpoints/step-00000060. More text" in notes_of(run)[0]
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**evaluation, "weights_of_step": 60}))
    assert notes_of(run)[0].endswith("final/ has the best weights, of step 60.")


def test_a_run_without_validation_has_a_note(make_run: MakeRun) -> None:
    assert notes_of(make_run(valid_every=0)) == ["This run was not validated during training."]
