"""Kills, signals and corruption in short form: a few runs and a hundred damages, three times as many in slow tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torture import calls
from torture.runs import PRETRAINED

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked, which this system cannot do")

HAS_COMPILER = any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def torture(tmp_path: Path, script: str) -> Any:
    """Runs `script` in a separate process, because it forks and this one has threads."""
    begin = "import json, sys; from pathlib import Path; from torture.runs import import_everything\n"
    begin += "import_everything()\nfolder = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", begin + script, str(tmp_path / "folder")]
    done = subprocess.run(command, capture_output=True, text=True, env=calls.environment())
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


@pytest.fixture(
    scope="module", params=[(4, 3), pytest.param((12, 6), marks=pytest.mark.slow)], ids=["7 runs", "18 runs"]
)
def interrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What came of runs that were killed, and of runs that were stopped; every kind of run, and every signal."""
    killed, stopped = request.param
    kinds = PRETRAINED if HAS_COMPILER else ("plain", "diverging")
    script = "from torture.kills import kills_and_signals\n"
    script += f"print(json.dumps(kills_and_signals(folder, {killed}, {stopped}, {kinds}, seed=1)))"
    found = torture(tmp_path_factory.mktemp("interrupted"), script)
    assert [part["trials"] for part in found] == [killed, stopped]
    return found


@pytest.mark.fault(33)
def test_killed_and_resumed_runs_are_bit_identical(interrupted: list[dict]) -> None:
    """Fault 33: kill -9 at random times, resumed; a quarter compiled and in bf16."""
    found = interrupted[0]
    assert found["failed"] == []
    assert found["equal"] == found["trials"]
    assert found["killed"] >= found["trials"]


def test_stopped_and_resumed_runs_are_bit_identical(interrupted: list[dict]) -> None:
    """SIGTERM, Ctrl-C, and Ctrl-C twice."""
    found = interrupted[1]
    assert found["failed"] == []
    assert found["equal"] == found["trials"]


@pytest.mark.fault(37)
@pytest.mark.parametrize("damages", [100, pytest.param(300, marks=pytest.mark.slow)])
def test_damage_is_detected_before_the_first_step(tmp_path: Path, damages: int) -> None:
    """Fault 37: flipped bits, truncations and swaps of every file that a resumed run reads."""
    script = f"from torture.corruption import corruptions\nprint(json.dumps(corruptions(folder, {damages})))"
    found = torture(tmp_path, script)
    assert found["broken"] == []
    assert found["by_outcome"]["refused"] > damages / 3
