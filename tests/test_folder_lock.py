"""A lock that ends with its process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from acorn.errors import UsageError
from acorn.folder_lock import FolderLock


def test_a_lock_excludes_a_second_process(tmp_path) -> None:
    """Fault 30. The lock ends with its process, however that ends."""
    script = (
        "import sys; from pathlib import Path; from acorn.folder_lock import FolderLock\n"
        "with FolderLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "run" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=f"process {holder.pid}"), FolderLock(path):
        pass
    holder.kill()
    holder.wait()
    with FolderLock(path):
        assert str(os.getpid()) in path.read_text()
