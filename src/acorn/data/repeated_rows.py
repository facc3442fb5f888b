"""Finds the rows whose text repeats that of an earlier row, in a text of any size with little memory.

The digests are written to temporary files by some of their bits, so that all copies of a text are in the same file and
each file fits in memory. Each file is then sorted. What stays in memory is one bit for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acorn.data.part_rows import digest_halves
from acorn.files import disk_errors

BUCKET_ROWS = 1 << 21
"""Rows in a temporary file, about: 50 MB on disk, and four times as much while it is sorted."""

_ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u8")])


class RepeatedRows:
    """Which rows repeat an earlier row."""

    def __init__(self, count: int) -> None:
        """For `count` rows of which none is a repeat."""
        self._bits = np.zeros(-(-count // 8), np.uint8)

    def __getitem__(self, rows: slice) -> NDArray[np.bool_]:
        """Whether each of the rows `start` to `stop` is a repeat."""
        first = rows.start // 8
        bits = np.unpackbits(self._bits[first : -(-rows.stop // 8)])
        return bits[rows.start - first * 8 : rows.stop - first * 8].astype(bool)

    def _mark(self, rows: NDArray[np.uint64]) -> None:
        np.bitwise_or.at(self._bits, rows >> np.uint64(3), np.uint8(128) >> (rows & np.uint64(7)).astype(np.uint8))

    @classmethod
    def find(
        cls, digests: Iterable[NDArray[np.bytes_]], count: int, folder: Path, bucket_rows: int = BUCKET_ROWS
    ) -> RepeatedRows:
        """Finds the repeats.

        Args:
            digests: the digests of all rows in order, in chunks.
            count: how many rows there are.
            folder: for the temporary files, 24 bytes a row.
            bucket_rows: rows in a temporary file, about.

        Raises:
            ResourceError: the disk is full.
        """
        found = cls(count)
        for bucket in _buckets(digests, max(1, -(-count // bucket_rows)), folder):
            # The keys are sorted from the last to the first; equal ones keep their order, which is that of the text.
            order = np.lexsort((bucket["low"], bucket["high"]))
            high, low = bucket["high"][order], bucket["low"][order]
            is_repeat = np.zeros(len(order), bool)
            is_repeat[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
            found._mark(bucket["row"][order][is_repeat])
        return found


def _buckets(digests: Iterable[NDArray[np.bytes_]], count: int, folder: Path) -> Iterator[NDArray[np.void]]:
    """Sorts rows into `count` temporary files by digest, then yields each file's content and removes it."""
    names = [folder / f".repeats-{number:05d}" for number in range(count)]
    row = 0
    try:
        with disk_errors(folder), ExitStack() as stack:
            files = [stack.enter_context(open(name, "wb")) for name in names]
            for chunk in digests:
                entries = np.zeros(len(chunk), _ENTRY)
                entries["high"], entries["low"] = digest_halves(chunk)
                entries["row"] = np.arange(row, row + len(chunk))
                row += len(chunk)
                # The second half chooses the file: within a split, the high bits of the first are not uniform.
                bucket = entries["low"] % np.uint64(count)
                order = np.argsort(bucket, kind="stable")
                edges = np.searchsorted(bucket[order], np.arange(count + 1))
                for number in np.flatnonzero(np.diff(edges)).tolist():
                    files[number].write(entries[order[edges[number] : edges[number + 1]]].tobytes())
        for name in names:
            yield np.fromfile(name, _ENTRY)
            name.unlink()
    finally:
        for name in names:
            name.unlink(missing_ok=True)
