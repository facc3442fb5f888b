"""Conversations in a .jsonl, one a line, as `acorn finetune --task chat` reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acorn.errors import UsageError
from acorn.files import disk_errors


def check_transcript(path: Path) -> None:
    """Refuses a file to which no conversation can be added.

    Raises:
        UsageError: its name does not end in .jsonl, it is no regular file, or its folder does not exist.
    """
    if path.suffix != ".jsonl":
        raise UsageError(f"{path} is not a .jsonl file.", where=str(path), fix="name a file such as chats.jsonl")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file.", where=str(path), fix="name another file")
    if not path.parent.is_dir():
        raise UsageError(f"The folder {path.parent} does not exist.", where=str(path), fix="create it first")


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Adds a line to a .jsonl, which is created if it does not exist. What is there stays.

    Raises:
        UsageError: see `check_transcript`.
        ResourceError: the file cannot be written.
    """
    check_transcript(path)
    line = json.dumps(record, ensure_ascii=False) + "\n"
    with disk_errors(path), open(path, "ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"  # the last line has no end
        file.write(line.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
