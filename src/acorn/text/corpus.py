"""Parts of a source -> documents, in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from acorn.config import DataConfig
from acorn.progress import QUIET, Progress
from acorn.text.cleaning import clean
from acorn.text.reading import Reading
from acorn.text.rows import RowReader
from acorn.text.sources import Part, open_reader
from acorn.text.text_files import TextFile

_PROGRESS_BYTES = 1 << 20  # bytes of text between two words to the listener


class Document(NamedTuple):
    """One unit of text, as the model sees it, with what its original counts."""

    text: str  # cleaned
    n_bytes: int  # UTF-8 bytes of the original text; a byte that could not be decoded is one
    n_words: int  # of the original text: words between white space, and one end-of-line a line
    source: str  # where it stands: the file or dataset, and the byte, line or row


@dataclass
class Corpus:
    """Parts to be read one after the other.

    Attributes:
        cut_small: cut a .txt that would be one document into about 64 blocks.
    """

    parts: Sequence[Part]
    data: DataConfig
    cut_small: bool = False

    def rows(
        self,
        reading: Reading,
        progress: Progress = QUIET,
        task: str = "reading text",
        source_ends: Callable[[str], None] = lambda name: None,
    ) -> Iterator[tuple[bytes, int, RowReader]]:
        """Rows that hold more than white space: original bytes, position, and the reader that can name the place.

        `progress` hears of bytes read and to read, as they are on disk (a Hub dataset: of text, total not known);
        `source_ends` of each part that has been read.
        """
        sizes = [part.size if isinstance(part, TextFile) else 0 for part in self.parts]
        total = sum(sizes) if all(isinstance(part, TextFile) for part in self.parts) else 0
        done = 0
        for part, size in zip(self.parts, sizes, strict=True):
            reader = open_reader(part, self.data, reading, cut_small=self.cut_small)
            unsaid = _PROGRESS_BYTES  # speaks at once, so that a slow start shows
            for raw, position in reader.rows():
                unsaid += len(raw)
                if unsaid > _PROGRESS_BYTES:
                    progress.at(task, done + reader.bytes_read, total)
                    unsaid = 0
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
        task: str = "reading text",
        source_ends: Callable[[str], None] = lambda name: None,
    ) -> Iterator[Document]:
        """The documents whose original bytes are `wanted` (None: all), cleaned.

        What becomes of wanted documents is counted in `reading`; empty and bad rows, which no one could ask about,
        in `rows`.

        Raises:
            InputError: for text that cannot be decoded, under `data.errors = "strict"`; and as the readers of rows.
        """
        counts, how = reading.counts, self.data.clean
        for raw, position, reader in self.rows(rows, progress, task, source_ends):
            if wanted and not wanted(raw):
                continue
            try:
                text = raw.decode()
            except UnicodeDecodeError as error:
                if reading.errors == "strict":
                    raise reader.undecodable(error, position) from None
                if reading.errors == "skip":
                    counts.dropped_bad += 1
                    continue
                text = raw.decode("utf-8", "replace")
                counts.replaced += 1
            if text.isspace():
                counts.dropped_empty += 1
                continue
            cleaned = clean(text, how)
            if not cleaned or cleaned.isspace():
                counts.dropped_by_cleaning += 1
                continue
            n_words = len(text.split()) + text.count("\n") + (not text.endswith("\n"))
            counts.documents += 1
            counts.bytes += len(raw)
            counts.words += n_words
            counts.with_crlf += "\r" in text and "\r\n" in text  # one character is found far sooner than two
            counts.with_nul += "\0" in text
            yield Document(cleaned, len(raw), n_words, reader.place(position))
