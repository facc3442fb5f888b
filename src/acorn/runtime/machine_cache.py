"""The cache folder of this machine, for later commands: compiled C code and the machine's measured peak FLOP/s.

It is $XDG_CACHE_HOME/acorn, else ~/.cache/acorn. Everything in it can be deleted at any time and is then created again.
Whatever is read from it is checked by its digest first.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from acorn.files import make_folders


def cache_folder() -> Path:
    """The cache folder, created if it is missing.

    Raises:
        OSError: it cannot be created.
        RuntimeError: the user's home folder is unknown.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "acorn"
    if not folder.is_dir():
        make_folders(root)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def processor() -> list[str]:
    """Model and features of this CPU, because different machines may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
