"""Converts text in another encoding to UTF-8, and finds bytes that are not valid in a file's encoding.

A byte that cannot be decoded becomes a mark: one byte 0xFF, which never occurs in UTF-8. `data.errors` is applied
later, where documents are decoded, whatever the encoding of the file, and a document's length counts the byte as one.
"""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from acorn.errors import InputError

UTF8 = "utf-8"
MAX_SCAN_BYTES = 1 << 26
"""How much of a file is searched to compute the share of its bad bytes."""

_CHUNK_BYTES = 1 << 18
_MARK_ERRORS = "acorn.marked"
_MARK = "\udcff"  # becomes the byte 0xFF under Python's surrogateescape
_SURROGATE = re.compile("[\ud800-\udfff]")


def _mark(error: UnicodeError) -> tuple[str, int]:
    """An error handler for Python's codecs: one mark for each byte that cannot be decoded."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK * (error.end - error.start), error.end


codecs.register_error(_MARK_ERRORS, _mark)


def marked(raw: bytes) -> str:
    """`raw` decoded as UTF-8, with a lone surrogate for each byte that is not UTF-8."""
    return raw.decode(UTF8, _MARK_ERRORS)


def as_utf8(text: str) -> bytes:
    """`text` in UTF-8, with one byte 0xFF for each lone surrogate, which UTF-8 cannot represent."""
    try:
        return text.encode(UTF8)
    except UnicodeEncodeError:
        return _SURROGATE.sub(_MARK, text).encode(UTF8, "surrogateescape")


class Utf8Stream(io.RawIOBase):
    """Converts a stream of bytes in another encoding to UTF-8 (with marks).

    Args:
        name: of the file, for messages.

    Raises:
        InputError: while reading, if the codec refuses the whole text, such as UTF-16 without a byte order mark.
    """

    def __init__(self, content: BinaryIO, encoding: str, name: str) -> None:
        self._content, self._encoding, self._name = content, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)(_MARK_ERRORS)
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
                    fix="set data.encoding to the file's encoding (utf-16-le or utf-16-be for UTF-16 without a byte "
                    "order mark), or convert the file to UTF-8",
                ) from None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


@dataclass(frozen=True)
class BadBytes:
    """Bytes of a file that are invalid in its encoding.

    Attributes:
        offset: of the first bad byte, in the uncompressed file.
        byte: its value.
        reason: the codec's explanation.
        count: the number of bad bytes.
        total: the number of bytes searched.
        complete: whether the whole file was searched.
        like_utf16: the file begins with a byte order mark of UTF-16.
        has_zeros: it contains zero bytes, as binary files do and text does not.
    """

    offset: int
    byte: int
    reason: str
    count: int
    total: int
    complete: bool
    like_utf16: bool
    has_zeros: bool = False

    def share(self) -> str:
        """The number and share of bad bytes, in words."""
        part = "" if self.complete else f"first {self.total:,} bytes of the "
        return f"bad bytes in the {part}file: {share_of(self.count, self.total)}"


_SHORTEST_HEAD, _ZERO_BYTES = 16, 0.6
"""Smallest number of bytes to tell UTF-16 by, and smallest share of characters with a zero byte."""


def share_of(count: int, total: int) -> str:
    """`count` of `total` (above 0) with the share: `3 of 400, 0.75%`."""
    share = count / total
    return f"{count:,} of {total:,}, {f'{share:.2%}' if share >= 0.0001 else 'under 0.01%'}"


def utf16_of(head: bytes) -> str:
    """The encoding of UTF-16 text that begins with `head`, as Python calls it; empty: it does not look like UTF-16.

    Without a byte order mark, most characters of an alphabet have a zero byte, which other text does not contain.
    """
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    first, second = head[::2].count(0), head[1::2].count(0)
    if len(head) < _SHORTEST_HEAD or max(first, second) < _ZERO_BYTES * len(head) / 2:
        return ""
    return "utf-16-be" if first > second else "utf-16-le"


def find_bad_bytes(content: BinaryIO, encoding: str) -> BadBytes | None:
    """Searches the first `MAX_SCAN_BYTES` of `content` for bad bytes. None if there are none."""
    make = codecs.getincrementaldecoder(encoding)
    strict, marking = make("strict"), make(_MARK_ERRORS)
    first: tuple[int, int, str] | None = None
    count = total = 0
    head = b""
    chunk, has_zeros = None, False
    while chunk != b"" and total < MAX_SCAN_BYTES:
        chunk = content.read(_CHUNK_BYTES)
        head = head or chunk[:2]
        total += len(chunk)
        has_zeros = has_zeros or 0 in chunk
        if first is None:
            try:
                strict.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:  # `error.object` begins with the bytes the decoder had buffered
                first = total - len(error.object) + error.start, error.object[error.start], error.reason
        count += len(_SURROGATE.findall(marking.decode(chunk, final=not chunk)))
    if first is None:
        return None
    like_utf16 = head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return BadBytes(*first, count, total, chunk == b"", like_utf16, has_zeros)
