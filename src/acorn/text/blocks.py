"""Cuts a long text into blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_READ_BYTES = 1 << 20


def cut_blocks(head: bytes, rest: BinaryIO, block_bytes: int) -> Iterator[bytes]:
    """Yields the text `head` + everything in `rest` as blocks of at most `block_bytes` bytes (at least 8).

    A block ends after a blank line if its last three quarters contain one, else after a line end there, else at a
    character boundary. Joined, the blocks are the text, byte for byte. They do not depend on the sizes of `head` and
    of the reads.
    """
    buffer, start = head, 0
    while True:
        while len(buffer) - start > block_bytes:
            end = _block_end(buffer, start, start + block_bytes)
            yield buffer[start:end]
            start = end
        more = rest.read(_READ_BYTES)
        if not more:
            break
        buffer, start = buffer[start:] + more, 0
    if start < len(buffer):
        yield buffer[start:]


def _block_end(buffer: bytes, start: int, limit: int) -> int:
    """The end of the block that begins at `start`: at most `limit`. `buffer` must be longer than `limit`."""
    earliest = start + (limit - start) // 4
    blank_line = max(buffer.rfind(b"\n\n", earliest, limit) + 2, buffer.rfind(b"\n\r\n", earliest, limit) + 3)
    if blank_line > earliest:
        return blank_line
    line_end = buffer.rfind(b"\n", earliest, limit) + 1
    if line_end > earliest:
        return line_end
    # A UTF-8 character has at most three continuation bytes (0b10xxxxxx); a longer series is not UTF-8.
    for end in range(limit, limit - 4, -1):
        if buffer[end] & 0xC0 != 0x80:
            return end
    return limit
