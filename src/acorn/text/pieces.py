"""Pieces of a text: ranges of its bytes that can be read and encoded by themselves, on any machine.

The files of a text are taken as joined end to end, as they are stored, and cut every `piece_bytes`. A row belongs to
the piece in which its first byte lies. A file that cannot be cut (compressed, parquet, not UTF-8) belongs to the piece
in which the file begins, and so does each file of a Hub dataset, whose size counts as one piece. The pieces depend on
the text alone, never on the number of workers.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.corpus import Corpus
from acorn.text.hub import HubSplit, files_of
from acorn.text.rows import WHOLE, Span, can_be_cut
from acorn.text.sources import Part
from acorn.text.text_files import TextFile

MAX_PIECE_BYTES = 16 << 20
MIN_PIECE_BYTES = 64 << 10
PIECES = 64
"""A text has at least so many pieces, unless they would be smaller than MIN_PIECE_BYTES."""

_SAMPLE_BYTES = 4 << 10
"""Bytes at the beginning, the middle and the end of a file that identify it, with its size."""


@dataclass(frozen=True)
class FileIdentity:
    """What tells a file of the text from another one. Its path does not count: machines may mount a disk elsewhere.

    Attributes:
        name: for messages.
        size: in bytes; 0 for files on the Hub.
        sample: SHA-256 of the bytes at its beginning, middle and end; for a file on the Hub, its address.
    """

    name: str
    size: int
    sample: str


@dataclass(frozen=True)
class Pieces:
    """The parts of one corpus, and where it is cut.

    Attributes:
        corpus: the whole corpus, with one part for each file.
        piece_bytes: size of a piece as it is stored.
        pieces: the numbers of the parts and the spans that belong to each piece.
    """

    corpus: Corpus
    piece_bytes: int
    pieces: tuple[tuple[tuple[int, Span], ...], ...]

    @classmethod
    def of(cls, corpus: Corpus, piece_bytes: int | None = None) -> Pieces:
        """Cuts `corpus`.

        Args:
            piece_bytes: None: by the size of the corpus.
        """
        parts = [file for part in corpus.parts for file in (files_of(part) if isinstance(part, HubSplit) else [part])]
        sizes = [MAX_PIECE_BYTES if isinstance(part, HubSplit) else part.size for part in parts]
        total = sum(sizes)
        piece_bytes = piece_bytes or min(MAX_PIECE_BYTES, max(MIN_PIECE_BYTES, total // PIECES))
        pieces: list[list[tuple[int, Span]]] = [[] for _ in range(max(1, -(-total // piece_bytes)))]
        begin = 0
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            first = min(begin // piece_bytes, len(pieces) - 1)  # an empty file may stand at the end
            if _is_cut(part, corpus.data):
                last = max(first, (begin + size - 1) // piece_bytes)
                for piece in range(first, last + 1):
                    start = max(0, piece * piece_bytes - begin)
                    stop = (piece + 1) * piece_bytes - begin if piece < last else sys.maxsize
                    pieces[piece].append((number, Span(start, stop)))
            else:
                pieces[first].append((number, WHOLE))
            begin += size
        return cls(replace(corpus, parts=parts), piece_bytes, tuple(map(tuple, pieces)))

    def __len__(self) -> int:
        return len(self.pieces)

    def open(self, number: int, row_starts: Mapping[str, int] = MappingProxyType({})) -> Corpus:
        """The text of one piece.

        Args:
            row_starts: path of a file -> a row of it begins there, at or before this piece.
        """
        parts = [self.corpus.parts[part] for part, _ in self.pieces[number]]
        spans = [
            span._replace(row_start=row_starts.get(str(part.path), 0))
            if span.start and isinstance(part, TextFile)
            else span
            for part, (_, span) in zip(parts, self.pieces[number], strict=True)
        ]
        return replace(self.corpus, parts=parts, spans=spans)

    def of_part(self, part: int, parts: int) -> range:
        """The pieces of part `part` (from 1) of `parts`: a run of about equally many."""
        return range((part - 1) * len(self) // parts, part * len(self) // parts)

    def identities(self) -> list[FileIdentity]:
        """The files of the corpus, in reading order.

        Raises:
            InputError: a file cannot be read.
        """
        return [_identity(part) for part in self.corpus.parts]


def differences(mine: Sequence[FileIdentity], theirs: Sequence[FileIdentity]) -> list[str]:
    """How the files of two texts differ, one line for each; empty: they are the same files in the same order."""
    if len(mine) != len(theirs):
        return [f"{len(mine):,} files, not {len(theirs):,}"]
    lines = []
    for number, (one, other) in enumerate(zip(mine, theirs, strict=True), start=1):
        if one.size != other.size:
            lines.append(f"file {number}: {one.name} of {one.size:,} bytes, not {other.name} of {other.size:,} bytes")
        elif one.sample != other.sample:
            lines.append(f"file {number}: {one.name} has other content than {other.name}")
    return lines


def _is_cut(part: Part, data: DataConfig) -> bool:
    return not isinstance(part, HubSplit) and can_be_cut(part, data)


def _identity(part: Part) -> FileIdentity:
    if isinstance(part, HubSplit):
        # Local files in the Hub's layout have other paths on other machines; their names count.
        names = [file if "://" in file else os.path.basename(file) for file in part.files]
        return FileIdentity(part.name, 0, " ".join(names))
    digest = hashlib.sha256()
    try:
        with open(part.path, "rb") as file:
            for offset in (0, part.size // 2, max(0, part.size - _SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise InputError(
            f"The file cannot be read: {error.strerror}.", where=part.name, fix="check its permissions"
        ) from None
    return FileIdentity(part.name, part.size, digest.hexdigest())
