"""Records of the files that something was made from, with which a later run can check quickly whether they changed.

A file whose size and modification time are as recorded counts as unchanged and is not read. Otherwise the digest of its
content decides, so a file that was copied or touched still counts as unchanged. The order of the files matters, their
names do not.
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
"""What identifies a file's content: the digest of its bytes, git's digest (small files on the Hub), or its address."""

HUB_FILE = "hf://"
MAX_DIFFERENCES = 10
"""The largest number of differences that a message lists."""

PROGRESS_BYTES = 2**30
"""Computing the digests of this many bytes takes about a second; for more, progress is reported."""

DIGEST_DIGITS = 12
"""Digits of a digest that messages show."""


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when something was made from it.

    Attributes:
        name: its absolute path, or its address on the Hub (`hf://...`).
        size: in bytes; 0 if unknown.
        changed_ns: modification time, in ns since 1970; 0 for files on the Hub.
        content: the kind of digest and the digest, such as `sha256:...`.
    """

    name: str
    size: int
    changed_ns: int
    content: str

    @classmethod
    def of(cls, place: str, kind: str = SHA256) -> FileRecord:
        """The record of the current file at `place`. Reads the whole file unless it is on the Hub.

        Args:
            place: a path, or an address on the Hub.
            kind: the kind of digest for a file on disk.

        Raises:
            InputError: the file cannot be read.
        """
        if "://" in place:
            return _hub_record(place)
        try:
            status = os.stat(place)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("This is not a regular file.", where=place, fix="name a regular file")
            kind = GIT if kind == GIT else SHA256
            content = _git_digest(Path(place), status.st_size) if kind == GIT else sha256_of(Path(place))
        except OSError as error:
            raise _unreadable(place, error) from None
        return cls(os.path.abspath(place), status.st_size, status.st_mtime_ns, f"{kind}:{content}")

    @property
    def description(self) -> str:
        """Size and digest for a message: `3,000 bytes, sha256 5f70bf18a086`."""
        kind, _, digest = self.content.partition(":")
        return f"{self.size:,} bytes, {kind} {digest[:DIGEST_DIGITS]}" if kind != ADDRESS else digest

    @property
    def kind(self) -> str:
        return self.content.partition(":")[0]

    def if_unchanged(self, place: str) -> FileRecord | None:
        """The current record of `place` if its content is the recorded one, else None.

        Raises:
            InputError: the file cannot be read, or only another kind of digest is available.
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
            raise InputError(f"Its {now.kind} cannot be compared with the recorded {self.kind}.", where=place)
        return now if now.content == self.content else None


def places_of(parts: Iterable[Part]) -> list[str]:
    """The files of the parts of a text: paths, and addresses on the Hub, in reading order."""
    return [place for part in parts for place in ([str(part.path)] if isinstance(part, TextFile) else part.files)]


def records_of(parts: Sequence[Part], progress: Progress = QUIET) -> list[FileRecord]:
    """Records of the files of `parts`.

    Args:
        progress: gets the number of files read, if they are large.

    Raises:
        InputError: a file changed since `parts` was made, or cannot be read.
    """
    task, places = "computing digests of the text", places_of(parts)
    if sum(part.size for part in parts if isinstance(part, TextFile)) < PROGRESS_BYTES:
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
    """Names of the parts that cannot be recorded: datasets whose files are unknown."""
    return [part.name for part in parts if isinstance(part, HubSplit) and not part.files]


def compare(recorded: Sequence[FileRecord], places: Sequence[str]) -> tuple[list[FileRecord], list[str]]:
    """Compares the files at `places` with the recorded ones. The order counts.

    Returns:
        the current records if nothing changed, else an empty list; and the changes, one line per file.

    Raises:
        InputError: a file cannot be read.
    """
    if len(recorded) == len(places):
        now = [record.if_unchanged(place) for record, place in zip(recorded, places, strict=True)]
        unchanged = [record for record in now if record is not None]
        if len(unchanged) == len(now):
            return unchanged, []
    before = {record.name: record for record in recorded}
    lines = []
    for place in places:
        name = place if "://" in place else os.path.abspath(place)
        record = before.pop(name, None)
        if record is None:
            lines.append(f"{name}: was absent; is now {FileRecord.of(place).description}")
        elif record.if_unchanged(place) is None:
            now_here = FileRecord.of(place, record.kind)
            lines.append(f"{name}: was {record.description}; is now {now_here.description}")
    lines += [f"{name}: was {record.description}; is now absent" for name, record in before.items()]
    if len(lines) > MAX_DIFFERENCES:
        lines[MAX_DIFFERENCES:] = [f"and {len(lines) - MAX_DIFFERENCES:,} more files"]
    return [], lines or ["the files are in another order"]


def _git_digest(path: Path, size: int) -> str:
    """Git's name for the content of a file: SHA-1 of a header and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _hub_record(address: str) -> FileRecord:
    """The record of a file on the Hub: the digest from the Hub's index, else the address. Nothing is downloaded."""
    if address.startswith(HUB_FILE):
        import huggingface_hub

        with contextlib.suppress(Exception):  # the library and its dependencies raise errors of many kinds
            info: dict[str, Any] = huggingface_hub.HfFileSystem().info(address)
            large = info.get("lfs")
            content = f"{SHA256}:{large['sha256']}" if large else f"{GIT}:{info['blob_id']}"
            return FileRecord(address, int(info["size"]), 0, content)
    return FileRecord(address, 0, 0, f"{ADDRESS}:{address}")


def _unreadable(place: str, error: OSError) -> InputError:
    return InputError(
        f"The file cannot be read: {error.strerror}.", where=place, fix="check its permissions and that its disk works"
    )
