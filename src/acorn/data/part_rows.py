"""One encoded piece of a text: what `acorn data merge` must know of each row, and the tokens of its documents.

A piece is three files. `train-00012.rows` has one `ROW` for each row that is more than white space, dropped ones too;
`train-00012.tokens` has the ids of the documents, joined; `train-00012.json`, written last, has the digests of both, so
that a piece is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.data.token_shards import Ids
from acorn.errors import DamageError
from acorn.files import disk_errors, read_sealed_json, sha256_of, sync_file, write_sealed_json
from acorn.text.digests import DIGEST_BYTES
from acorn.text.reading import SplitCounts

COUNTED = ("documents", "dropped_empty", "dropped_by_cleaning", "dropped_bad", "replaced", "with_crlf", "with_nul")
"""The fields of `SplitCounts` that a single row can have: 0 or 1 each."""

ROW = np.dtype(
    [
        ("digest", f"S{DIGEST_BYTES}"),  # of the original bytes
        ("text_digest", f"V{DIGEST_BYTES}"),  # of the cleaned text
        ("bytes", "<u8"),  # original bytes
        ("words", "<u8"),
        ("tokens", "<u8"),  # ids in the .tokens file, the separator included; 0: not a document
        ("unknown", "<u8"),
        ("unspelled", "<u8"),
        ("measured", "u1"),  # whether the next two are known
        ("text_words", "<u8"),  # words of the cleaned text
        ("kept_words", "<u8"),  # those that encoding and decoding leave unchanged
        *((name, "u1") for name in COUNTED),
    ]
)
CHUNK_ROWS = 1 << 16
"""Rows that are read at once: about 6 MB."""

Rows = NDArray[np.void]


@dataclass(frozen=True)
class PieceFiles:
    """The files of one piece in the folder of a part."""

    folder: Path
    split: str
    number: int

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.split}-{self.number:06d}.{ending}"

    @property
    def rows(self) -> Path:
        return self._file("rows")

    @property
    def tokens(self) -> Path:
        return self._file("tokens")

    @property
    def record(self) -> Path:
        return self._file("json")

    def is_whole(self) -> bool:
        """Whether an earlier process has written the piece and nothing has changed it."""
        try:
            record = read_sealed_json(self.record)
            return all(sha256_of(file) == record[name] for name, file in self._data().items())
        except (DamageError, OSError, KeyError):
            return False

    def finish(self, counts: SplitCounts) -> None:
        """Writes the record of a piece whose rows and tokens are written.

        Args:
            counts: of the rows that the reader itself dropped.
        """
        with disk_errors(self.folder):
            for file in self._data().values():
                with open(file, "rb+") as opened:
                    sync_file(opened.fileno())
        digests = {name: sha256_of(file) for name, file in self._data().items()}
        write_sealed_json(self.record, {**digests, "counts": asdict(counts)})

    def counts(self) -> SplitCounts:
        """The counts of the rows that the reader itself dropped."""
        return SplitCounts(**read_sealed_json(self.record)["counts"])

    def row_count(self) -> int:
        return self.rows.stat().st_size // ROW.itemsize

    def row_chunks(self) -> Iterator[Rows]:
        """The rows in order, CHUNK_ROWS at once."""
        with open(self.rows, "rb") as file:
            while len(chunk := np.fromfile(file, ROW, CHUNK_ROWS)):
                yield chunk

    def token_reader(self, dtype: np.dtype[Any]) -> TokenReader:
        return TokenReader(self.tokens, dtype)

    def _data(self) -> dict[str, Path]:
        return {"rows": self.rows, "tokens": self.tokens}


class TokenReader:
    """Reads the tokens of a piece from its beginning, and skips what is not wanted. Memory: one block."""

    BLOCK_TOKENS = 1 << 20

    def __init__(self, file: Path, dtype: np.dtype[Any]) -> None:
        self._file, self._dtype = file, dtype
        self._offset = 0  # in tokens

    def wanted(self, lengths: NDArray[np.int64], keep: NDArray[np.bool_]) -> Iterator[Ids]:
        """The tokens of the next documents, of `lengths` tokens each, for which `keep` is true."""
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, self.BLOCK_TOKENS):
            stop = min(start + self.BLOCK_TOKENS, total)
            first, last = np.searchsorted(ends, [start, stop - 1], side="right")
            part = slice(int(first), int(last) + 1)
            if not keep[part].any():
                continue
            inside = np.minimum(ends[part], stop) - np.maximum(ends[part] - lengths[part], start)
            block = np.fromfile(
                self._file, self._dtype, stop - start, offset=(self._offset + start) * self._dtype.itemsize
            )
            yield block[np.repeat(keep[part], inside)]
        self._offset += total


def digest_halves(digests: Any) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The two halves of 16-byte digests as integers, of which the first one decides the split."""
    halves = np.ascontiguousarray(digests).view(">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def digest_list(digests: Any) -> list[bytes]:
    """The digests as bytes. (NumPy's own conversion drops zero bytes at the end.)"""
    raw = np.ascontiguousarray(digests).tobytes()
    return [raw[at : at + DIGEST_BYTES] for at in range(0, len(raw), DIGEST_BYTES)]
