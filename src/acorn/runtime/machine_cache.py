"""What acorn keeps about this machine for later commands: compiled C code and the machine's measured peak.

It is kept in $XDG_CACHE_HOME/acorn, else ~/.cache/acorn. Everything in there can be deleted at any time: it is made
again. What is read from there is checked by its digest first.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from acorn.files import make_folders


def cache_folder() -> Path:
    """The folder, which is made where it is missing.

    Raises:
        OSError: it cannot be made.
        RuntimeError: nothing says where the user's home is.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "acorn"
    if not folder.is_dir():
        make_folders(root)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def processor() -> list[str]:
    """What this CPU is and can do: machines of several kinds may share a cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.machine(), platform.processor()]
    return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
