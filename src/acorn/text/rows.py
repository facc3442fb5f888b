"""Files -> rows: the original bytes of each unit that may become a document, and its position.

Each reader has `rows()`, one pass over (bytes, position); `place(position, byte)`, which describes the place of a byte
of that row in words; `undecodable(error, position)`, the error for a row that is not UTF-8; and `bytes_read`, the
progress of the pass. Memory holds one row or block and a buffer, never the whole file.

Rows of a file in another encoding are already converted to UTF-8, with a byte 0xFF for each byte that could not be
decoded. A byte order mark at the beginning of a file is removed. CRLF line ends and NUL characters are kept. A lone
surrogate, which JSON escapes can produce, is bad text, like bytes that are not UTF-8.
"""

from __future__ import annotations

import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.blocks import cut_blocks
from acorn.text.cleaning import looks_like_wikitext
from acorn.text.reading import ERRORS_HINT, SKIP_HINT, Reading
from acorn.text.text_files import OpenFile, TextFile, open_text
from acorn.text.transcoding import UTF8, as_utf8, find_bad_bytes, marked, share_of

MAX_WHOLE_FILE_BYTES = 1 << 20  # a longer .txt is cut into blocks
BLOCK_BYTES = 16 << 10
SMALL_FILE_BLOCKS = 64  # number of blocks of a short .txt that is the only file
SMALL_BLOCK_BYTES = 256
_WIKITEXT_HEAD_BYTES = 64 << 10
_TABLE_BATCH_ROWS = 1024
_BOM = b"\xef\xbb\xbf"

Row = tuple[bytes, int]


class Span(NamedTuple):
    """A range of bytes of a file. A reader gives the rows whose first byte is in it.

    Attributes:
        row_start: the beginning of a row at or before `start`, if a reader has found one; 0: unknown.
    """

    start: int
    stop: int
    row_start: int = 0


WHOLE = Span(0, sys.maxsize)


class RowReader(Protocol):
    """One pass over the rows of a file, or of a split of a Hub dataset."""

    @property
    def bytes_read(self) -> int: ...

    def rows(self) -> Iterator[Row]: ...

    def place(self, position: int, byte: int = 0) -> str: ...

    def undecodable(self, error: UnicodeDecodeError, position: int) -> InputError: ...


def can_be_cut(file: TextFile, data: DataConfig) -> bool:
    """Whether the rows of a `Span` of `file` can be read: it is plain UTF-8, and a row is less than the file."""
    if file.compression or file.encoding != UTF8:
        return False
    return file.form == "jsonl" or (file.form == "txt" and data.document != "file")


def file_reader(
    file: TextFile, data: DataConfig, reading: Reading, *, cut_small: bool = False, span: Span = WHOLE
) -> RowReader:
    """The reader for `file`.

    Args:
        cut_small: a .txt that would be one document is cut into about 64 blocks.
        span: read only the rows that begin there; other spans than WHOLE need a file that `can_be_cut`.
    """
    if span != WHOLE and not can_be_cut(file, data):
        raise ValueError(f"{file.name} can only be read whole")
    if file.form == "txt":
        return TxtReader(file, data, reading, cut_small, span)
    return JsonlReader(file, data, reading, span) if file.form == "jsonl" else ParquetReader(file, data, reading)


class FileReader(ABC):
    """The common part of the readers of files. An offset is in bytes of the uncompressed file."""

    def __init__(self, file: TextFile, data: DataConfig, reading: Reading) -> None:
        self.file, self.data, self.reading = file, data, reading
        self._open: OpenFile | None = None

    @property
    def bytes_read(self) -> int:
        return self._open.position if self._open else 0

    @abstractmethod
    def place(self, position: int, byte: int = 0) -> str: ...

    def _where(self, offset: int) -> str:
        return f"{self.file.name}, byte {offset}" + (" of the uncompressed text" if self.file.compression else "")

    def undecodable(self, error: UnicodeDecodeError, position: int) -> InputError:
        """The error for the row at `position`, which is not UTF-8. It gives the share of bad bytes in the file."""
        encoding = self.file.encoding
        with open_text(self.file, decoded=False) as file:
            found = find_bad_bytes(file.bytes, encoding)
        if found is None:  # the bad byte is after the part of the file that is searched
            what, where = f"byte 0x{error.object[error.start]:02X}, {error.reason}", self.place(position, error.start)
        elif encoding == UTF8:
            what = f"byte 0x{error.object[error.start]:02X}, {error.reason} ({found.share()})"
            where = self.place(position, error.start)
        else:  # the row contains marks instead of the original bytes
            what = f"byte 0x{found.byte:02X}, {found.reason} ({found.share()})"
            where = self._where(found.offset)
        utf16 = encoding == UTF8 and found is not None and found.like_utf16
        name = "UTF-8" if encoding == UTF8 else encoding
        example = "utf-16" if utf16 else "latin-1" if encoding == UTF8 else "utf-8"
        if encoding == UTF8 and found is not None and found.has_zeros and not utf16:
            return InputError(
                f"This is not a text file: it has zero bytes, and {what}.",
                where=where,
                fix="name text files only; the text of another kind of file, such as a PDF, must be extracted first",
            )
        return InputError(
            f"This text is not {name}: {what}{'; the file begins like UTF-16' if utf16 else ''}.",
            where=where,
            fix=f"set data.encoding to the file's encoding, such as data.encoding={example} (acorn does not guess it), "
            f"convert the file to UTF-8, or {ERRORS_HINT}",
        )


class TxtReader(FileReader):
    """Reads a .txt by lines, by blocks, or as one row. A position is the byte offset of the row.

    Where a block ends depends on the blocks before it, so a span of blocks is read from `span.row_start` on.

    Attributes:
        next_row: after a pass over a span, where the first row after it begins.
    """

    def __init__(self, file: TextFile, data: DataConfig, reading: Reading, cut_small: bool, span: Span = WHOLE) -> None:
        super().__init__(file, data, reading)
        self.cut_small, self.span, self.next_row = cut_small, span, 0

    def rows(self) -> Iterator[Row]:
        with open_text(self.file) as self._open:
            rest = self._open.bytes
            head = rest.read(MAX_WHOLE_FILE_BYTES + 1)
            position = 0
            if head.startswith(_BOM):
                self.reading.counts.with_bom += self.span.start == 0
                head, position = head[len(_BOM) :], len(_BOM)
            rows = self._cut(head, rest)
            if self.span.start > position and self._in_lines(head):
                position, rows = _line_after(rest, self.span.start), iter(rest)
            elif self.span.row_start > position and len(head) > MAX_WHOLE_FILE_BYTES:
                position = rest.seek(self.span.row_start)
                rows = cut_blocks(b"", rest, BLOCK_BYTES)
            for raw in rows:
                if position >= self.span.stop:
                    break
                if position >= self.span.start:
                    yield raw, position
                position += len(raw)
            self.next_row = position

    def place(self, position: int, byte: int = 0) -> str:
        where = self._where(position + byte)
        return where if self.file.encoding == UTF8 else f"{where}, in UTF-8"

    def _in_lines(self, head: bytes) -> bool:
        """Whether each line is a row."""
        document = self.data.document
        wikitext = self.data.clean == "wikitext" or looks_like_wikitext(head[:_WIKITEXT_HEAD_BYTES])
        return document in ("line", "row") or (document == "auto" and wikitext)

    def _cut(self, head: bytes, rest: io.BufferedReader) -> Iterator[bytes]:
        document = self.data.document
        if self._in_lines(head):
            return _lines(head, rest)
        if document == "file":
            return iter((head + rest.read(),))
        if len(head) > MAX_WHOLE_FILE_BYTES:
            return cut_blocks(head, rest, BLOCK_BYTES)
        if self.cut_small or document == "block":
            return cut_blocks(head, rest, max(SMALL_BLOCK_BYTES, len(head) // SMALL_FILE_BLOCKS))
        return iter((head,))


class JsonlReader(FileReader):
    """Reads a .jsonl: the text field of the object on each line. A position is the line number, from 1.

    In a span that is not the beginning of the file, lines are counted from the first line of the span.
    """

    def __init__(self, file: TextFile, data: DataConfig, reading: Reading, span: Span = WHOLE) -> None:
        super().__init__(file, data, reading)
        self.span = span
        self._seen: set[str] = set()  # names of columns
        self._spellings = {
            json.dumps(data.text_field, ensure_ascii=wanted) for wanted in (True, False)
        }  # as JSON writes it

    def rows(self) -> Iterator[Row]:
        with open_text(self.file) as self._open:
            offset = _line_after(self._open.bytes, self.span.start) if self.span.start else 0
            for number, line in enumerate(self._open.bytes, start=1):
                start, offset = offset, offset + len(line)
                if start >= self.span.stop:
                    break
                if start == 0 and line.startswith(_BOM):
                    self.reading.counts.with_bom += 1
                    start, line = len(_BOM), line[len(_BOM) :]
                if not line.isspace():
                    raw = self._text_of(line, number, start)
                    if raw is not None:
                        yield raw, number

    def place(self, position: int, byte: int = 0) -> str:
        after = f" after byte {self.span.start}" if self.span.start else ""
        return f"{self.file.name}, line {position}{after}"

    def _text_of(self, line: bytes, number: int, start: int) -> bytes | None:
        """The line's text field in UTF-8, with marks under `replace`; None if the line is dropped."""
        try:
            decoded = line.decode()
        except UnicodeDecodeError as error:
            if self.reading.errors == "strict":
                fault = self.undecodable(error, number)
                where = fault.where if self.file.encoding != UTF8 else self._where(start + error.start)
                raise InputError(fault.what, where=f"{where} (line {number})", fix=fault.fix) from None
            if self.reading.errors == "skip":
                self.reading.counts.dropped_bad += 1
                return None
            decoded = marked(line)
        try:
            record = json.loads(decoded)
        except (ValueError, RecursionError) as error:
            self.reading.refuse(f"This line is not JSON: {error}.", self.place(number))
            return None
        text = record.get(self.data.text_field) if isinstance(record, dict) else None
        # Most lines contain the name once. Only the other lines are parsed a second time.
        may_repeat = text is not None and sum(map(decoded.count, self._spellings)) > 1
        if may_repeat and (same := _count_fields(decoded, self.data.text_field)) > 1:
            what = f"This line has {same} fields named {self.data.text_field!r}, and only one of them can be the text."
            self.reading.refuse(what, self.place(number))
            return None
        if not isinstance(text, str):
            what = _fault(record, self.data.text_field)
            self.reading.refuse(what, self.place(number), f"{_FIELD_HINT}; or {SKIP_HINT}")
            return None
        if len(record) > 1 and not record.keys() <= self._seen:
            self._seen |= record.keys()
            self.reading.sees(record, self.data.text_field, self.file.name)
        return self._encoded(text, number)

    def _encoded(self, text: str, number: int) -> bytes | None:
        """`text` in UTF-8, which cannot represent the lone surrogates that JSON escapes can produce."""
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError as error:
            if self.reading.errors == "replace":
                return as_utf8(text)
            what = f"The text contains a lone surrogate (\\u{ord(text[error.start]):04x}), which is not a character."
            self.reading.refuse(what, self.place(number), f"correct it, or {ERRORS_HINT}")
            return None


class ParquetReader(FileReader):
    """Reads the text column of a .parquet. A position is the row number, from 1."""

    def __init__(self, file: TextFile, data: DataConfig, reading: Reading) -> None:
        super().__init__(file, data, reading)
        self._share_read = 0.0

    @property
    def bytes_read(self) -> int:
        return int(self._share_read * self.file.size)

    def rows(self) -> Iterator[Row]:
        import pyarrow  # slow to import, so only for this format
        import pyarrow.parquet

        number = 0
        self.file.check_unchanged()
        try:
            # With a buffer the library reads a column page by page instead of a whole row group at once.
            options = {"pre_buffer": False, "buffer_size": 1 << 20, "page_checksum_verification": True}
            with pyarrow.parquet.ParquetFile(self.file.path, **options) as table:
                check_columns(table.schema_arrow.names, self.data.text_field, self.file.name, self.reading)
                # The library treats a column name as a path: "a.b" also selects the field b of a struct a.
                for batch in table.iter_batches(_TABLE_BATCH_ROWS, columns=[self.data.text_field]):
                    for raw in column_bytes(batch[self.data.text_field], self.data.text_field, self.file.name):
                        number += 1
                        if raw is None:
                            what = f"The field {self.data.text_field!r} of this row is null."
                            self.reading.refuse(what, self.place(number))
                        else:
                            yield raw, number
                    self._share_read = number / table.metadata.num_rows
        except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:  # a column's name may be damaged, too
            self.file.check_unchanged()
            raise InputError(
                f"The file is truncated or damaged: {error}.",
                where=f"{self.file.name}, after row {number} ({self.file.size:,} bytes)",
                fix="copy or download it again",
            ) from error
        self.file.check_unchanged()

    def place(self, position: int, byte: int = 0) -> str:
        return f"{self.file.name}, row {position}" + (f", byte {byte} of its text" if byte else "")

    def undecodable(self, error: UnicodeDecodeError, position: int) -> InputError:
        return undecodable_value(error, self.place(position, error.start))


def undecodable_value(error: UnicodeDecodeError, where: str) -> InputError:
    """The error for a value of a table's column that is not UTF-8, the only encoding that tables support."""
    raw: bytes = error.object
    count = sum("\udc00" <= character <= "\udfff" for character in marked(raw))
    return InputError(
        f"This text is not UTF-8: byte 0x{raw[error.start]:02X}, {error.reason} (bad bytes in the "
        f"text: {share_of(count, len(raw))}).",
        where=where,
        fix=f"rewrite the column as UTF-8, or {ERRORS_HINT}",
    )


def check_columns(names: list[str], wanted: str, where: str, reading: Reading) -> None:
    """Reports the columns of a table to `reading`.

    Raises:
        InputError: there is no text column, or several columns have its name.
    """
    if wanted not in names:
        raise InputError(f"There is no column {wanted!r}; {_keys_seen(names)}.", where=where, fix=_FIELD_HINT)
    if (same := names.count(wanted)) > 1:
        raise InputError(
            f"There are {same} columns named {wanted!r}, and only one of them can be the text.",
            where=where,
            fix=f"rename the other columns, or {_FIELD_HINT}",
        )
    reading.sees(names, wanted, where)


def column_bytes(column: Any, name: str, where: str) -> list[bytes | None]:
    """The bytes of each value of an Arrow column of text; None for null. Whether they are UTF-8 is not checked.

    Text types are those that the library can cast to bytes.
    """
    import pyarrow

    try:
        values: list[bytes | None] = column.cast(pyarrow.large_binary()).to_pylist()
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        raise InputError(
            f"The column {name!r} contains {column.type}, not text.", where=where, fix=_FIELD_HINT
        ) from None
    return values


_FIELD_HINT = "set data.text_field to the name of the one that contains the text"


def _line_after(file: io.BufferedReader, offset: int) -> int:
    """Moves to the first line that begins at `offset` (at least 1) or later. Returns where that is."""
    file.seek(offset - 1)
    file.readline()
    return file.tell()


def _lines(head: bytes, rest: io.BufferedReader) -> Iterator[bytes]:
    """Yields the lines of `head` + everything in `rest`, each with its line end."""
    for line in io.BytesIO(head):
        yield line if line.endswith(b"\n") else line + rest.readline()
    yield from rest


def _fault(record: object, field: str) -> str:
    """The reason why the JSON on a line has no text."""
    if not isinstance(record, dict):
        return f"This line is a JSON {_json_kind(record)}, not an object with a field {field!r}."
    if field not in record:
        return f"This line has no field {field!r}; {_keys_seen(record)}."
    return f"The field {field!r} of this line is a JSON {_json_kind(record[field])}, not a string."


def _count_fields(line: str, field: str) -> int:
    """The number of fields with that name in the JSON object on a line. (A dict would keep only the last of them.)"""
    return sum(name == field for name, _ in json.loads(line, object_pairs_hook=list))


def _json_kind(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return {str: "string", int: "number", float: "number", list: "list"}.get(type(value), "object")


def _keys_seen(names: Any) -> str:
    shown = [repr(name[:40]) for name in list(names)[:20]]
    return "it has " + (", ".join(shown) + (", ..." if len(names) > len(shown) else "") if shown else "no fields")
