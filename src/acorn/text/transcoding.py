"""Text in another encoding, read as UTF-8; and bytes that are no text in the encoding they are said to be in.

A byte that cannot be decoded is carried on as one byte 0xFF, which no UTF-8 holds: `data.errors` is applied where
documents are decoded, whatever the encoding of the file, and the length of a document counts that byte as one.
"""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from acorn.errors import InputError

UTF8 = "utf-8"
SCANNED_BYTES = 1 << 26
"""How much of a file is looked at to tell the share of its bad bytes."""

_CHUNK_BYTES = 1 << 18
_MARKED = "acorn.marked"
_MARK = "\udcff"  # becomes the byte 0xFF under Python's surrogateescape
_SURROGATE = re.compile("[\ud800-\udfff]")


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Python's handler of errors: one mark for each byte that cannot be decoded."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK * (error.end - error.start), error.end


codecs.register_error(_MARKED, _mark)


def marked(raw: bytes) -> str:
    """`raw` decoded as UTF-8, with a lone surrogate for each byte that is not."""
    return raw.decode(UTF8, _MARKED)


def as_utf8(text: str) -> bytes:
    """UTF-8 of `text`, with one byte 0xFF for each lone surrogate, which no UTF-8 can hold."""
    try:
        return text.encode(UTF8)
    except UnicodeEncodeError:
        return _SURROGATE.sub(_MARK, text).encode(UTF8, "surrogateescape")


class Utf8Stream(io.RawIOBase):
    """A stream of bytes in another encoding, as UTF-8 (with marks).

    Args:
        name: what messages call the file.

    Raises:
        InputError: while reading, where the codec refuses the text as a whole (UTF-16 without its mark).
    """

    def __init__(self, content: BinaryIO, encoding: str, name: str) -> None:
        self._content, self._encoding, self._name = content, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)(_MARKED)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has any writable buffer
        while not self._ready and not self._ended:
            chunk = self._content.read(_CHUNK_BYTES)
            self._ended = not chunk
            try:
                self._ready = as_utf8(self._decoder.decode(chunk, final=self._ended))
            except UnicodeError as error:
                raise InputError(
                    f"This text is not {self._encoding}: {error}.",
                    where=self._name,
                    fix="name the file's own encoding in data.encoding (utf-16-le or utf-16-be for UTF-16 without a "
                    "byte order mark), or convert the file to UTF-8",
                ) from None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@dataclass(frozen=True)
class BadBytes:
    """Bytes of a file that its encoding cannot mean.

    Attributes:
        offset: of the first one, in bytes of the unpacked file.
        byte: its value.
        reason: the codec's own words about it.
        count: how many there are.
        total: bytes looked at.
        complete: whether that was the whole file.
        like_utf16: the file begins with the byte order mark of UTF-16.
    """

    offset: int
    byte: int
    reason: str
    count: int
    total: int
    complete: bool
    like_utf16: bool

    def share(self) -> str:
        """How many of how many, in words."""
        part = "" if self.complete else f"first {self.total:,} bytes of the "
        return f"bad bytes in the {part}file: {share_of(self.count, self.total)}"


def share_of(count: int, total: int) -> str:
    """`count` of `total` (above 0) in words, with the share."""
    share = count / total
    return f"{count:,} of {total:,}, {f'{share:.2%}' if share >= 0.0001 else 'under 0.01%'}"


def find_bad_bytes(content: BinaryIO, encoding: str) -> BadBytes | None:
    """Looks through the first `SCANNED_BYTES` of `content`; None where all of them are text."""
    make = codecs.getincrementaldecoder(encoding)
    strict, marking = make("strict"), make(_MARKED)
    first: tuple[int, int, str] | None = None
    count = total = 0
    head = b""
    chunk = None
    while chunk != b"" and total < SCANNED_BYTES:
        chunk = content.read(_CHUNK_BYTES)
        head = head or chunk[:2]
        total += len(chunk)
        if first is None:
            try:
                strict.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:  # `error.object` has the bytes that the decoder had kept back, too
                first = total - len(error.object) + error.start, error.object[error.start], error.reason
        count += len(_SURROGATE.findall(marking.decode(chunk, final=not chunk)))
    if first is None:
        return None
    return BadBytes(*first, count, total, chunk == b"", head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
