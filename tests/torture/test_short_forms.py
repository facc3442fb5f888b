"""Kills, signals and corruption in short form: a dozen runs, a few hundred damages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from torture import calls
from torture.runs import PRETRAINED

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked, which this system cannot do")

HAS_COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def torture(tmp_path: Path, script: str) -> dict:
    """Runs `script` in a separate process, because it forks and this one has threads."""
    begin = "import json, sys; from pathlib import Path; from torture.runs import import_everything\n"
    begin += "import_everything()\nfolder = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", begin + script, str(tmp_path / "folder")]
    done = subprocess.run(command, capture_output=True, text=True, env=calls.environment())
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


@pytest.mark.fault(33)
def test_killed_and_resumed_runs_are_bit_identical(tmp_path: Path) -> None:
    """Fault 33: kill -9 at random times, resumed; a quarter compiled and in bf16."""
    kinds = PRETRAINED if HAS_COMPILER else ("plain", "diverging")
    script = f"from torture.kills import kills\nprint(json.dumps(kills(folder, 12, {kinds}, seed=1)))"
    found = torture(tmp_path, script)
    assert found["failed"] == []
    assert found["equal"] == 12
    assert found["killed"] >= 12


def test_stopped_and_resumed_runs_are_bit_identical(tmp_path: Path) -> None:
    script = "from torture.kills import signals\nprint(json.dumps(signals(folder, 6, ('plain', 'diverging'), seed=1)))"
    found = torture(tmp_path, script)
    assert found["failed"] == []
    assert found["equal"] == 6


@pytest.mark.fault(37)
def test_damage_is_detected_before_the_first_step(tmp_path: Path) -> None:
    """Fault 37: flipped bits, truncations and swaps of every file that a resumed run reads."""
    found = torture(tmp_path, "from torture.corruption import corruptions\nprint(json.dumps(corruptions(folder, 300)))")
    assert found["broken"] == []
    assert found["by_outcome"]["refused"] > 100
