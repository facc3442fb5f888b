from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from acorn.report.comparison import comparison_section
from acorn.report.run_facts import read_run
from acorn.report.seeds import seed_groups, spread_of
from acorn.run_folder import RunFolder

MakeRun = Callable[..., Path]


def with_bits(run: Path, bits: float) -> Path:
    found = json.loads((run / "evaluation.json").read_text())
    found["valid"]["bits_per_byte"] = bits
    (run / "evaluation.json").write_text(json.dumps(found))
    return run


def seeded(make_run: MakeRun, seed: int, bits: float, *overrides: str) -> Path:
    name = f"seed-{seed}-{len(overrides)}"
    return with_bits(make_run(name, overrides=("name=x", f"train.seed={seed}", *overrides)), bits)


def test_mean_and_sample_standard_deviation() -> None:
    """1, 2, 6: mean 3, squared deviations 4 + 1 + 9 over n - 1 = 2."""
    spread = spread_of([1.0, 2.0, 6.0])
    assert (spread.mean, spread.low, spread.high, spread.count) == (3.0, 1.0, 6.0, 3)
    assert spread.deviation == pytest.approx(7**0.5)


def test_only_runs_that_differ_in_their_seed_form_a_group(make_run: MakeRun) -> None:
    runs = [
        seeded(make_run, 0, 1.5),
        seeded(make_run, 0, 1.0, "optimizer.lr=0.5"),
        seeded(make_run, 1, 1.7),
        seeded(make_run, 2, 1.9),
        make_run("running", overrides=("name=x", "train.seed=3"), complete=False),
    ]
    (group,) = seed_groups([read_run(run) for run in runs])
    assert (group.members, group.seeds) == ((0, 2, 3), (0, 1, 2))
    assert group.spreads["valid", "bits_per_byte"].mean == pytest.approx(1.7)
    assert group.spreads["valid", "bits_per_byte"].deviation == pytest.approx(0.2)
    assert group.spreads["test", "bits_per_byte"].deviation == 0.0


def test_two_runs_of_one_seed_are_no_group(make_run: MakeRun) -> None:
    runs = [make_run("a", overrides=("name=x",)), make_run("b", overrides=("name=x",))]
    assert seed_groups([read_run(run) for run in runs]) == []


def test_a_run_named_twice_counts_once(make_run: MakeRun) -> None:
    zero, one = (read_run(seeded(make_run, seed, 1.0 + seed)) for seed in (0, 1))
    (group,) = seed_groups([zero, one, zero])
    assert group.spreads["valid", "bits_per_byte"].mean == pytest.approx(1.5)


def test_figures_of_different_texts_have_no_mean(make_run: MakeRun) -> None:
    runs = [seeded(make_run, 0, 1.5), seeded(make_run, 1, 1.7)]
    manifest = json.loads((runs[1] / "data" / "manifest.json").read_text())
    manifest["splits"]["valid"]["bytes"] += 1
    (runs[1] / "data" / "manifest.json").write_text(json.dumps(manifest))
    (group,) = seed_groups([read_run(run) for run in runs])
    assert ("valid", "bits_per_byte") not in group.spreads
    assert ("test", "bits_per_byte") in group.spreads


def test_a_run_that_was_changed_when_resumed_is_left_out(make_run: MakeRun) -> None:
    runs = [seeded(make_run, seed, 1.0 + seed) for seed in (0, 1, 2)]
    checkpoint = RunFolder(runs[2]).checkpoint(60)
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text(json.dumps({"counters": {"undisturbed": False}}))
    facts = [read_run(run) for run in runs]
    (group,) = seed_groups(facts)
    assert group.members == (0, 1)
    assert "Changed when resumed" in comparison_section(facts, ["a", "b", "c"])
    assert "Changed when resumed" not in comparison_section(facts[:2], ["a", "b"])
