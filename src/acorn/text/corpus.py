"""The parts of a source -> documents, in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

from acorn.config import DataConfig
from acorn.progress import QUIET, Progress
from acorn.text.cleaning import clean
from acorn.text.reading import Reading
from acorn.text.rows import WHOLE, RowReader, Span
from acorn.text.sources import Part, open_reader
from acorn.text.text_files import TextFile

_PROGRESS_BYTES = 1 << 20  # bytes of text between two progress updates


class Document(NamedTuple):
    """One unit of text, as the model sees it, with the size of its original."""

    text: str  # cleaned
    n_bytes: int  # UTF-8 bytes of the original text; a byte that cannot be decoded counts as one
    n_words: int  # words of the original text, separated by white space, plus one end-of-line per line
    source: str  # its location: the file or dataset, and the byte, line or row


@dataclass
class Corpus:
    """Parts of a text that are read one after another.

    Attributes:
        cut_small: a .txt that would be one document is cut into about 64 blocks.
        spans: the range of each part that is read; empty: all of it.
    """

    parts: Sequence[Part]
    data: DataConfig
    cut_small: bool = False
    spans: Sequence[Span] = ()

    def rows(
        self,
        reading: Reading,
        progress: Progress = QUIET,
        task: str = "reading files",
        source_ends: Callable[[str], None] = lambda name: None,
    ) -> Iterator[tuple[bytes, int, RowReader]]:
        """Yields the rows that contain more than white space: original bytes, position, and the reader of the row.

        The reader can describe a position. `progress` gets the number of bytes read and the total, both as stored on
        disk (for a Hub dataset: bytes of text, total unknown). `source_ends` is called after each part.
        """
        sizes = [part.size if isinstance(part, TextFile) else 0 for part in self.parts]
        total = sum(sizes) if all(isinstance(part, TextFile) for part in self.parts) else 0
        done = 0
        spans = self.spans or repeat(WHOLE, len(sizes))
        for part, size, span in zip(self.parts, sizes, spans, strict=True):
            reader = open_reader(part, self.data, reading, cut_small=self.cut_small, span=span)
            unreported = _PROGRESS_BYTES  # so that the first row is reported at once
            for raw, position in reader.rows():
                unreported += len(raw)
                if unreported > _PROGRESS_BYTES:
                    progress.at(task, done + reader.bytes_read, total)
                    unreported = 0
                if not raw or raw.isspace():
                    reading.counts.dropped_empty += 1
                else:
                    yield raw, position, reader
            source_ends(part.name)
            done += size or reader.bytes_read
        progress.at(task, done, total)
        progress.end(task)

    def documents(
        self,
        reading: Reading,
        *,
        rows: Reading,
        wanted: Callable[[bytes], bool] | None = None,
        progress: Progress = QUIET,
        task: str = "reading files",
        source_ends: Callable[[str], None] = lambda name: None,
    ) -> Iterator[Document]:
        """Yields the cleaned documents for whose original bytes `wanted` is true (None: all documents).

        `reading` counts these documents. `rows` counts empty and bad rows, for which `wanted` is never called.

        Raises:
            InputError: text cannot be decoded under `data.errors = "strict"`, a row is bad, or a file is damaged.
        """
        for raw, position, reader in self.rows(rows, progress, task, source_ends):
            if wanted and not wanted(raw):
                continue
            document = document_of(raw, position, reader, self.data, reading)
            if document is not None:
                yield document


def document_of(raw: bytes, position: int, reader: RowReader, data: DataConfig, reading: Reading) -> Document | None:
    """The cleaned document of a row; None if it is dropped. `reading` counts it either way.

    Raises:
        InputError: the row cannot be decoded under `data.errors = "strict"`.
    """
    counts = reading.counts
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        if reading.errors == "strict":
            raise reader.undecodable(error, position) from None
        if reading.errors == "skip":
            counts.dropped_bad += 1
            return None
        text = raw.decode("utf-8", "replace")
        counts.replaced += 1
    if text.isspace():
        counts.dropped_empty += 1
        return None
    cleaned = clean(text, data.clean)
    if not cleaned or cleaned.isspace():
        counts.dropped_by_cleaning += 1
        return None
    n_words = len(text.split()) + text.count("\n") + (not text.endswith("\n"))
    counts.documents += 1
    counts.bytes += len(raw)
    counts.words += n_words
    counts.with_crlf += "\r" in text and "\r\n" in text  # searching for one character first is much faster
    counts.with_nul += "\0" in text
    return Document(cleaned, len(raw), n_words, reader.place(position))
