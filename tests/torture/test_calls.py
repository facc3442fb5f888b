"""Each system call of the durable writers fails or kills once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from torture import calls, full_disk

# In a separate process, because it forks and this one has threads.
INTERCEPTED = "import json, sys; from pathlib import Path; from torture import calls\n"
INTERCEPTED += "print(json.dumps(calls.intercepted(Path(sys.argv[1]))))"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is forked, which this system cannot do")
@pytest.mark.fault(33)
def test_old_or_new_for_a_fault_at_every_call_of_python(tmp_path: Path) -> None:
    """Fault 33: a kill at every call in turn. Fault 34: three errors at every call."""
    command = [sys.executable, "-c", INTERCEPTED, str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=calls.environment())
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert found["done"] > 200


@pytest.mark.skipif(not calls.has_strace(), reason="strace is not here, or may not trace")
def test_old_or_new_for_a_kill_at_every_system_call(tmp_path: Path) -> None:
    found = calls.traced(tmp_path, ("KILL",))
    assert found["broken"] == []
    assert found["done"] > 50


@pytest.mark.skipif(not full_disk.can_mount(), reason="no mount namespace here")
def test_a_really_full_disk(tmp_path: Path) -> None:
    found = full_disk.full_disk(tmp_path, runs=0)
    assert found["sweep"]["broken"] == []
    assert found["sweep"]["done"] > 5
