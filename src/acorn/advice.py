"""Commands that messages advise, written so that they can be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def acorn_command(*words: str | Path) -> str:
    """`acorn` with these words, each quoted where a shell would take it apart."""
    return shlex.join(["acorn", *map(str, words)])


def resume_command(run: Path, *more: str) -> str:
    """The command that starts or resumes the run in the folder `run` by its own config.

    Args:
        more: further words, such as settings that the run is to be resumed with.
    """
    return acorn_command("pretrain", "--resume", "--out", run, *more)
