"""metrics.jsonl and samples.jsonl: one JSON object a line, appended while training, cut back on resume.

A checkpoint records the length of both files. A resumed run repeats the steps after its checkpoint, so the files are
truncated to that length first and no step appears twice.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acorn.errors import DamageError
from acorn.files import disk_errors, make_folders, permission_denied, sync_file, sync_folder

FIELDS = (
    "step",
    "samples",
    "tokens",
    "epoch",
    "seconds",
    "split",
    "loss",
    "bits_per_byte",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "mfu",
    "prompt",
    "text",
)


WORDS = {"split", "prompt", "text"}
"""Fields that are strings; all the others of `FIELDS` are numbers."""

MAX_INTEGER = 2**63
"""Integers of this size and above are refused: no count reaches them."""


class JsonLines:
    """Appends records to a file of JSON lines. A line left half-written by a killed run is dropped at opening.

    Raises:
        ResourceError: the disk is full or cannot be written (from every method).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            make_folders(path.parent)
            is_new = not path.exists()
            # Unbuffered: a line that failed to be written must not stay in a buffer and surface later.
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
            if is_new:
                sync_folder(path.parent)
            self._drop_torn_line()

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one line, fields in the order of `FIELDS` and then as they come.

        JSON has no NaN or infinity: such a field is left out, the rest of the record is kept.
        """
        known = [name for name in FIELDS if name in record] + [name for name in record if name not in FIELDS]
        values = {name: record[name] for name in known if _is_json(record[name])}
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        # A lone surrogate has no UTF-8; as \udxxx it is legal JSON and reads back as it was.
        line = text.encode("utf-8", errors="backslashreplace")
        with disk_errors(self.path, needed=len(line)):
            before = self.length
            try:
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(before)
                raise

    def cut_to(self, n_bytes: int) -> int:
        """Cuts the file back to its first `n_bytes` and returns how many of those are missing.

        Missing bytes (above 0) mean that somebody shortened or removed the file. Training does not need it:
        the caller says so and goes on.
        """
        missing = max(0, n_bytes - self.length)
        with disk_errors(self.path):
            self._file.truncate(min(n_bytes, self.length))
            self._drop_torn_line()
        return missing

    def sync(self) -> None:
        """Flushes the file to the disk: to be called before a checkpoint records `length`."""
        with disk_errors(self.path):
            sync_file(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _drop_torn_line(self) -> None:
        """Cuts the file after its last line end."""
        with open(self.path, "rb") as file:
            end = self.length
            while end > 0:
                start = max(0, end - 4096)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    end = start + found + 1
                    break
                end = start
        if end < self.length:
            self._file.truncate(end)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl, in order; none if there is no such file. A torn last line is left out.

    Raises:
        DamageError: another line is not a JSON object of such fields, or the file cannot be read.
    """
    return _read(path, needed=("step", "split"))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The records of samples.jsonl, in order; none if there is no such file. A torn last line is left out.

    Raises:
        DamageError: another line is not a JSON object of such fields, or the file cannot be read.
    """
    return _read(path, needed=("step", "prompt", "text"))


def _read(path: Path, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except PermissionError:
        raise permission_denied(path) from None
    except OSError as error:
        raise DamageError(
            f"{path.name} cannot be read: {error.strerror}.", where=str(path), fix="check that it can be opened"
        ) from None
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last line end is torn, or nothing
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or any(name not in record for name in needed) or _wrong_fields(record):
            raise DamageError(
                f"{path.name} has a line that is not a JSON object with {', '.join(needed)}.",
                where=f"{path}, line {number}",
                fix="remove that line, or restore the file from a copy",
            )
        records.append(record)
    return records


def _wrong_fields(record: dict[str, Any]) -> list[str]:
    """Fields that do not hold what is written into them: whoever reads a record computes with them."""
    return [
        name
        for name in FIELDS
        if name in record and not (isinstance(record[name], str) if name in WORDS else _is_number(record[name]))
    ]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, int) and abs(value) < MAX_INTEGER


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
