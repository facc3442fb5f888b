"""Records of the files that something was made from: enough to tell later, cheaply, whether they are still the same.

A file whose size and time of change are as recorded is taken to be unchanged, without reading it. Otherwise its content
decides, by digest, so that a file that was copied or merely touched is still the same one. Names do not count, order
does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acorn.errors import InputError
from acorn.files import sha256_of
from acorn.progress import QUIET, Progress
from acorn.text.hub import HubSplit
from acorn.text.sources import Part
from acorn.text.text_files import TextFile

SHA256, GIT, ADDRESS = "sha256", "git", "address"
"""How a content is told: by the digest of its bytes, by git's (of small files at the Hub), or by where it lies."""

HUB_FILE = "hf://"
MOST_LINES = 10
"""Differences that a message lists one by one."""

LARGE = 2**30
"""Bytes whose digests take long enough, about a second, to tell how far they are."""

DIGITS = 12
"""Of a digest, in messages."""


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when something was made from it.

    Attributes:
        name: its absolute path, or its address at the Hub (`hf://...`).
        size: bytes; 0 where that is not known.
        changed_ns: time of the last change, in ns since 1970; 0 at the Hub.
        content: how its content is told and the digest, as `sha256:...`.
    """

    name: str
    size: int
    changed_ns: int
    content: str

    @classmethod
    def of(cls, place: str, kind: str = SHA256) -> FileRecord:
        """The record of the file at `place` as it is now. Reads it whole, unless the Hub has it.

        Args:
            place: a path, or an address at the Hub.
            kind: how to tell the content of a file on disk.

        Raises:
            InputError: it cannot be read.
        """
        if "://" in place:
            return _hub_record(place)
        try:
            status = os.stat(place)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("This is no regular file.", where=place, fix="name a regular file")
            kind = GIT if kind == GIT else SHA256
            content = _git_digest(Path(place), status.st_size) if kind == GIT else sha256_of(Path(place))
        except OSError as error:
            raise _unreadable(place, error) from None
        return cls(os.path.abspath(place), status.st_size, status.st_mtime_ns, f"{kind}:{content}")

    @property
    def told(self) -> str:
        """The file within a sentence: `3,000 bytes, sha256 5f70bf18a086`."""
        kind, _, digest = self.content.partition(":")
        return f"{self.size:,} bytes, {kind} {digest[:DIGITS]}" if kind != ADDRESS else digest

    @property
    def kind(self) -> str:
        return self.content.partition(":")[0]

    def still(self, place: str) -> FileRecord | None:
        """The record of `place` as it is now if its content is the one recorded here, else None.

        Raises:
            InputError: it cannot be read, or told only in another way than was recorded.
        """
        if "://" not in place:
            try:
                status = os.stat(place)
            except OSError as error:
                raise _unreadable(place, error) from None
            if (os.path.abspath(place), status.st_size, status.st_mtime_ns) == (self.name, self.size, self.changed_ns):
                return self
            if self.size and status.st_size != self.size:
                return None
        now = FileRecord.of(place, self.kind)
        if now.kind != self.kind:
            raise InputError(f"Its {now.kind} cannot be compared with the {self.kind} recorded.", where=place)
        return now if now.content == self.content else None


def places_of(parts: Iterable[Part]) -> list[str]:
    """The files behind parts of a text: paths, and addresses at the Hub, in the order of reading."""
    return [place for part in parts for place in ([str(part.path)] if isinstance(part, TextFile) else part.files)]


def records_of(parts: Sequence[Part], progress: Progress = QUIET) -> list[FileRecord]:
    """Records of the files of `parts`, which were looked at before.

    Args:
        progress: hears of the files read, where they are large.

    Raises:
        InputError: one changed since it was looked at, or cannot be read.
    """
    task, places = "taking digests of the text", places_of(parts)
    if sum(part.size for part in parts if isinstance(part, TextFile)) < LARGE:
        progress = QUIET
    records: list[FileRecord] = []
    for place in places:
        progress.at(task, len(records), len(places), "files")
        records.append(FileRecord.of(place))
    progress.end(task)
    for part in parts:
        if isinstance(part, TextFile):
            part.check_unchanged()
    return records


def untold(parts: Iterable[Part]) -> list[str]:
    """Names of parts that no record can be made of: datasets that do not tell their files."""
    return [part.name for part in parts if isinstance(part, HubSplit) and not part.files]


def compare(recorded: Sequence[FileRecord], places: Sequence[str]) -> tuple[list[FileRecord], list[str]]:
    """Whether the files at `places` are those recorded, in the same order.

    Returns:
        their records as they are now, where nothing changed; and what changed, one line a file.

    Raises:
        InputError: as `FileRecord.of`.
    """
    if len(recorded) == len(places):
        now = [record.still(place) for record, place in zip(recorded, places, strict=True)]
        unchanged = [record for record in now if record is not None]
        if len(unchanged) == len(now):
            return unchanged, []
    before = {record.name: record for record in recorded}
    lines = []
    for place in places:
        name = place if "://" in place else os.path.abspath(place)
        record = before.pop(name, None)
        if record is None:
            lines.append(f"{name}: not there then, {FileRecord.of(place).told} now")
        elif record.still(place) is None:
            lines.append(f"{name}: {record.told} then, {FileRecord.of(place, record.kind).told} now")
    lines += [f"{name}: {record.told} then, not there now" for name, record in before.items()]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES:,} more files"]
    return [], lines or ["the files are read in another order"]


def _git_digest(path: Path, size: int) -> str:
    """What git names the content of a file by: SHA-1 of a header and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _hub_record(address: str) -> FileRecord:
    """A file that the Hub keeps, by the digest in its index, else by its address: nothing is fetched."""
    if address.startswith(HUB_FILE):
        import huggingface_hub

        with contextlib.suppress(Exception):  # the library and what it stands on raise errors of many families
            info: dict[str, Any] = huggingface_hub.HfFileSystem().info(address)
            large = info.get("lfs")
            content = f"{SHA256}:{large['sha256']}" if large else f"{GIT}:{info['blob_id']}"
            return FileRecord(address, int(info["size"]), 0, content)
    return FileRecord(address, 0, 0, f"{ADDRESS}:{address}")


def _unreadable(place: str, error: OSError) -> InputError:
    return InputError(f"The file cannot be read: {error.strerror}.", where=place, fix="check that it can be opened")
