"""Commands that messages suggest, quoted so that they can be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def acorn_command(*words: str | Path) -> str:
    """The command `acorn` with these arguments, each quoted for a shell where needed."""
    return shlex.join(["acorn", *map(str, words)])


def resume_command(run: Path, *more: str) -> str:
    """The command that starts or resumes the run in the folder `run` with its own config.

    Args:
        more: further arguments, such as settings to resume the run with.
    """
    return acorn_command("pretrain", "--resume", "--out", run, *more)
