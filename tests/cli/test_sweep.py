"""`acorn sweep` with real processes: table, page, JSON object, and the exit code of a failed run."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_sweep_of_two_runs_one_of_which_fails(acorn, text_file: Path, settings, tmp_path: Path) -> None:
    given = [setting for setting in settings if "block_size" not in setting and "steps" not in setting]
    command = ["sweep", "small", f"data.source={text_file}", *given, "train.steps=2"]
    command += ["model.block_size=[32,1000000]", "--out", tmp_path / "sweep", "--jobs", 2]
    done = acorn(*command)
    assert done.returncode == 3, done.stderr
    assert "1 of 2 runs failed" in done.stderr
    assert "fewer than one window" in done.stderr
    assert "Traceback" not in done.stderr
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[0][:2] == ["block_size", "runs"]
    assert table[1][:2] == ["32", "1/1"]
    assert table[2][:2] == ["1000000", "0/1"]
    assert (tmp_path / "sweep" / "report.html").exists()
    assert "fewer than one window" in (tmp_path / "sweep" / "logs" / "block_size=1000000.log").read_text()
    command[-4] = "x"
    again = acorn(*command[:-5], "model.block_size=[32]", "--out", tmp_path / "sweep", "--resume", "--json")
    assert again.returncode == 0, again.stderr
    facts = json.loads(again.stdout)
    assert again.stdout.count("\n") == 1
    assert facts["runs"][0]["status"] == "done"
    assert facts["best"]["bits_per_byte_mean"] == facts["runs"][0]["evaluation"]["valid"]["bits_per_byte"]
    evaluated = json.loads(acorn("evaluate", tmp_path / "sweep" / "block_size=32", "--json").stdout)
    assert abs(evaluated["bits_per_byte"] - facts["best"]["bits_per_byte_mean"]) < 1e-6


def test_help_explains_a_grid_and_a_list(acorn) -> None:
    shown = " ".join(acorn("sweep", "--help").stdout.split())
    assert "a list is one value, and a list of lists is several" in shown
