"""`acorn plan`: figures in readable units as text, and in base units as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acorn.cli.plan import readable, rough_duration
from acorn.run import plan


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0.4 seconds"),
        (45, "45 seconds"),
        (119, "119 seconds"),
        (180, "3 minutes"),
        (12 * 60 + 20, "12 minutes"),
        (3.25 * 3600, "3.2 hours"),
        (26 * 3600, "26 hours"),
        (152_546.4 * 60, "106 days"),
        (900 * 86_400, "2.5 years"),
        (1, "1 second"),
        (1.02, "1 second"),
    ],
)
def test_a_duration_has_a_readable_unit(seconds: float, said: str) -> None:
    assert rough_duration(seconds) == said


def test_a_plan_is_printed_as_text_or_json(
    acorn, text_file: Path, settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plan, "seconds_per_step", lambda *_: 2.0)
    command = ("plan", "small", f"data.source={text_file}", *settings, "train.steps=4600000")
    done = acorn(*command, "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (facts["text"], facts["vocab_size"], facts["steps"]) == ("whole", 300, 4_600_000)
    assert facts["minutes"] == pytest.approx(2 * 4_600_000 / 60)
    assert facts["tokens"] == 4_600_000 * facts["tokens_per_step"]
    assert facts["memory_bytes"] > 1e6
    shown = acorn(*command, cwd=tmp_path).stdout
    assert f"{facts['train_tokens']:,} tokens from {facts['train_bytes'] / 1000:.3g} kB" in shown
    assert f"{facts['parameters']:,} parameters" in shown
    assert "epochs" in shown
    assert "106 days" in shown
    assert list(tmp_path.iterdir()) == []


def test_many_epochs_get_a_warning(acorn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "seconds_per_step", lambda *_: 2.0)
    facts = json.loads(acorn("plan", "small", "--json").stdout)
    for epochs, said in (
        (None, None),
        (1, "1 epoch"),
        (20, "20 epochs"),
        (99.96, "100 epochs"),
        (4321.6, "4,322 epochs"),
    ):
        shown = readable(facts | {"epochs": epochs})
        assert said is None or said in str(shown["the run"])
        assert (shown["warning"] is not None) == (epochs is not None and epochs > 20)
    assert "overfitting" in str(readable(facts | {"epochs": 101})["warning"])
    assert "load" in str(shown["speed"])


def test_a_plan_names_what_is_unknown(acorn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "seconds_per_step", lambda *_: 2.0)
    assert "does not download it" in acorn("plan", "small", "data.source=hf:some/one").stdout
    assert "needs data.source" in acorn("plan", "small").stdout
    facts = json.loads(acorn("plan", "small", "--json").stdout)
    assert "its size is unknown" in str(readable(facts | {"text": "part"})["training text"])


def test_a_plan_refuses_a_missing_text(acorn) -> None:
    done = acorn("plan", "small", "data.source=nope.txt", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "nope.txt" in done.stderr
