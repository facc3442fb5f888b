"""Text files on disk: their formats, opening plain and compressed ones, and detecting damage and changes.

The kind of a file is checked before it is opened, so that opening a named pipe cannot hang.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from acorn.counting import counted
from acorn.errors import InputError
from acorn.pickles import refuse_pickle
from acorn.text.transcoding import UTF8, Utf8Stream

Form = Literal["txt", "jsonl", "parquet", "json", "csv", "tsv", "conll"]
_COMPRESSIONS = ("", ".gz", ".xz", ".zst")
MARKUP_ENDINGS = (".md", ".csv", ".tsv", ".html", ".htm")
"""Endings of formats with markup or separators, which are read as plain text."""


@dataclass(frozen=True)
class Endings:
    """The supported endings of one kind of file.

    Attributes:
        noun: the word for such a file, for messages.
        forms: ending, in lower case -> the format of the file, and its compression.
    """

    noun: str
    forms: Mapping[str, tuple[Form, str]]

    @classmethod
    def of(cls, noun: str, forms: Mapping[str, Form]) -> Endings:
        """Endings that can each be followed by the ending of a compression."""
        compressed = {
            f"{ending}{compression}": (form, compression)
            for ending, form in forms.items()
            for compression in _COMPRESSIONS
        }
        return cls(noun, {**compressed, ".parquet": ("parquet", "")})  # has its own compression

    @property
    def listed(self) -> str:
        """The endings in words, for messages."""
        plain = ", ".join(
            ending for ending, (form, compression) in self.forms.items() if not compression and form != "parquet"
        )
        return f"{plain} (each also with {', '.join(_COMPRESSIONS[1:])} after it) and .parquet"


TEXT = Endings.of("text", {".txt": "txt", ".jsonl": "jsonl", **dict.fromkeys(MARKUP_ENDINGS, "txt")})
"""The endings of text for pretraining."""

_TABLES: Mapping[str, Form] = {
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".iob": "conll",
}
EXAMPLES = Endings.of("table", _TABLES)
"""The endings of rows for finetuning."""

INPUTS = Endings.of("table", {**_TABLES, ".txt": "txt"})
"""The endings of rows that need no label: in a .txt each line is one."""

_BUFFER_BYTES = 1 << 18
_FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def ending_of(name: str, endings: Endings = TEXT) -> str | None:
    """The supported ending of a file name (`.txt`, `.jsonl.gz`...), or None."""
    lower = name.lower()
    return next((ending for ending in endings.forms if lower.endswith(ending)), None)


@dataclass(frozen=True)
class TextFile:
    """A regular file with a supported ending, as it was when this object was made."""

    path: Path
    name: str  # for messages
    form: Form
    compression: str  # "", ".gz", ".xz" or ".zst"
    size: int  # bytes on disk
    changed_ns: int  # modification time
    encoding: str = UTF8

    @classmethod
    def at(cls, path: Path, name: str = "", encoding: str = UTF8, endings: Endings = TEXT) -> TextFile:
        """The text file at `path`. A parquet file is UTF-8 whatever `encoding` is.

        Raises:
            InputError: it does not exist, is not a regular file, or has an unsupported ending.
        """
        name = name or str(path)
        status = _status(path, name)
        ending = ending_of(path.name, endings)
        if ending is None:
            refuse_pickle(path, name, fix=f"name a {endings.noun} file: {endings.listed}")
            raise InputError(
                f"acorn cannot read {path.name}: its ending is not that of a {endings.noun} format.",
                where=name,
                fix=f"if it is a {endings.noun} file, rename it to one of these endings: {endings.listed}",
            )
        form, compression = endings.forms[ending]
        encoding = UTF8 if form == "parquet" else encoding
        return cls(path, name, form, compression, status.st_size, status.st_mtime_ns, encoding)

    def check_unchanged(self) -> None:
        """Raises InputError if size or modification time of the file changed since this object was made."""
        status = _status(self.path, self.name)
        if (status.st_size, status.st_mtime_ns) != (self.size, self.changed_ns):
            before = counted(self.size, "byte")
            raise InputError(
                f"The file changed while it was in use: it had {before} and now has {status.st_size:,}.",
                where=self.name,
                fix="wait until the program that writes it has finished, then run the command again",
            )


class OpenFile:
    """A text file open for reading: `bytes` is its uncompressed text, `position` the offset in the file itself."""

    def __init__(self, content: io.BufferedReader, raw: io.FileIO) -> None:
        self.bytes = content
        self._raw = raw

    @property
    def position(self) -> int:
        """The number of bytes of the file on disk that have been read."""
        return 0 if self._raw.closed else self._raw.tell()


@contextlib.contextmanager
def open_text(file: TextFile, *, decoded: bool = True) -> Iterator[OpenFile]:
    """Opens `file`. An OSError raised in the block is taken for a failure to read the file.

    Args:
        decoded: convert the text from its encoding to UTF-8 (see `transcoding.py`); else read its own bytes.

    Raises:
        InputError: the file changed since `file` was made, is truncated or damaged, or cannot be read.
    """
    file.check_unchanged()
    raw: io.FileIO | None = None
    try:
        raw = open(file.path, "rb", buffering=0)  # noqa: SIM115 - closed below
        content = _decompressed(raw, file)
        if decoded and file.encoding != UTF8:
            stream = Utf8Stream(content, file.encoding, file.name)
            content = io.BufferedReader(stream, _BUFFER_BYTES)
        yield OpenFile(content, raw)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        file.check_unchanged()
        raise _damage(error, file, raw.tell() if raw else 0) from error
    finally:
        if raw:
            raw.close()
    file.check_unchanged()


def _decompressed(raw: io.FileIO, file: TextFile) -> io.BufferedReader:
    if file.compression and not file.size:
        raise EOFError
    content: Any = raw
    if file.compression == ".gz":
        content = gzip.GzipFile(fileobj=cast(BinaryIO, raw), mode="rb")
    elif file.compression == ".xz":
        content = lzma.LZMAFile(cast(BinaryIO, raw))  # noqa: SIM115 - closed with `raw`
    elif file.compression == ".zst":
        import pyarrow  # slow to import, so only for this format

        content = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
    return io.BufferedReader(content, _BUFFER_BYTES)


def _damage(error: Exception, file: TextFile, position: int) -> InputError:
    if isinstance(error, OSError) and error.errno:
        return InputError(
            f"The file cannot be read: {error.strerror}.",
            where=file.name,
            fix="check its permissions and that its disk works",
        )
    cut_short = isinstance(error, EOFError) or "runcated" in str(error)  # pyarrow: "Truncated compressed stream"
    return InputError(
        "The file is truncated: it ends within its compressed data." if cut_short else f"The file is damaged: {error}.",
        where=f"{file.name}, at or before byte {position} of {file.size}",
        fix="copy or download it again",
    )


def _status(path: Path, name: str) -> os.stat_result:
    """The status of the regular file at `path`, links followed."""
    try:
        status = path.stat()
    except OSError as error:
        what = f"The file cannot be read: {error.strerror}."
        raise InputError(what, where=name, fix="check the path and its links") from None
    if not stat.S_ISREG(status.st_mode):
        kind = _FILE_KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
        raise InputError(f"This is {kind}, but a file is expected.", where=name, fix="name a regular file")
    return status
