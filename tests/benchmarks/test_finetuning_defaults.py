"""The sweep behind finetuning's defaults: resumed where it stopped, and shown as a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import finetuning_defaults


def test_known_results_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a runner that only notes what it was asked for: the first base gets all trials, others fewer."""
    asked = []

    def run(base: Path, rows: list[str], trial: finetuning_defaults.Trial, out: Path, _: list[str]) -> dict[str, float]:
        asked.append((base.name, trial))
        assert rows[0] == "--data"
        assert out.parent.parent.name == base.name
        return {"accuracy": 0.5, "answer_loss": trial.rate, "seconds": 1.0}

    monkeypatch.setattr(finetuning_defaults, "run", run)
    (tmp_path / "chat.jsonl").write_text("{}\n" * 1000)
    sweep = tmp_path / "sweep"
    arguments = ["--base", "one", "--base", "two", "--chat", str(tmp_path / "chat.jsonl"), "--out", str(sweep)]
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    finetuning_defaults.main()
    used = sweep / "chat.jsonl"
    assert used.read_text().count("\n") == finetuning_defaults.MOST_ROWS["chat"]
    of = {name: [trial for base, trial in asked if base == name] for name in ("one", "two")}
    assert set(of["two"]) < set(of["one"])
    assert len(set(of["one"])) == len(of["one"])
    first = capsys.readouterr().out
    assert first.count("\n") == 2 + len(asked)
    assert "| one | full-0.003-10-4 | 0.500, 0.003 |" in first
    results = json.loads((sweep / "results.json").read_text())
    dropped = results.popitem()[0]
    (sweep / "results.json").write_text(json.dumps(results))
    asked.clear()
    finetuning_defaults.main()
    assert [f"{base}/chat/{trial.name}" for base, trial in asked] == [dropped]
    assert capsys.readouterr().out == first
