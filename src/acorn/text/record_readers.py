"""Reads the rows of files of each format, with their places.

A file that cannot be read is an InputError. A row that cannot be read is a `Refusal`, and a value that cannot be read
an `Unusable`; the caller decides what happens to them. Bytes that are not text are handled here, as `data.errors` says,
because they usually mean that the file has another encoding: `strict` refuses the file, `replace` inserts U+FFFD, and
`skip` makes the value unusable.

A line ends at a line feed (in .csv and .tsv also at a carriage return), and nowhere else: strings in JSON may contain
the other line separators of Unicode.
"""

from __future__ import annotations

import csv
import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from acorn.config import DataConfig
from acorn.counting import counted
from acorn.errors import InputError
from acorn.text.examples import Record, Refusal, Unusable, kind_of
from acorn.text.reading import Reading
from acorn.text.rows import FileReader
from acorn.text.text_files import TextFile, open_text
from acorn.text.transcoding import marked

MOST_FIELD_CHARACTERS = 2**31 - 1
"""Of one field of a .csv; the csv module's own limit is 131,072, which a long mail exceeds."""

REPEATED = Unusable("is there more than once in this row")
NOT_TEXT = "holds bytes that are not text, or half a surrogate pair"
_BOM = b"\xef\xbb\xbf"
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SPELLED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_HEADER_HINT = "begin the file with one line that names its columns"
_JSON_HINT = "make it a list of objects, [{...}, {...}], or one object a line"
_DOCUMENT_START = "-DOCSTART-"


class RecordReader(Protocol):
    """One pass over the rows of a file or of a Hub dataset's split."""

    @property
    def bytes_read(self) -> int: ...

    def records(self) -> Iterator[Record | Refusal]: ...


class _RecordFile(FileReader):
    """The part that all readers of text files share. A position is the number of a line, from 1."""

    def place(self, position: int, byte: int = 0) -> str:
        return f"{self.file.name}, line {position}"

    @abstractmethod
    def records(self) -> Iterator[Record | Refusal]: ...

    def _lines(self, file: Iterable[bytes]) -> Iterator[tuple[int, str]]:
        """Number and text of each line, line end included, with a lone surrogate for each byte that is not text.

        Raises:
            InputError: there is such a byte, and `data.errors` is "strict".
        """
        for number, raw in enumerate(file, start=1):
            yield number, self._decoded(raw, number)

    def _decoded(self, raw: bytes, number: int) -> str:
        if number == 1 and raw.startswith(_BOM):
            self.reading.counts.with_bom += 1
            raw = raw[len(_BOM) :]
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            if self.reading.errors == "strict":
                raise self.undecodable(error, number) from None
            return marked(raw)

    def _settled(self, value: Any) -> Any:
        """`value` without lone surrogates: U+FFFD in their place, or `Unusable` in place of strings that contain one.

        Raises:
            RecursionError: it is nested too deeply.
        """
        if isinstance(value, str):
            if value.isascii() or not _LONE_SURROGATE.search(value):
                return value
            if self.reading.errors == "replace":
                self.reading.counts.replaced += 1
                return _LONE_SURROGATE.sub("\ufffd", value)
            return Unusable(NOT_TEXT)
        if isinstance(value, list):
            return [self._settled(part) for part in value]
        if isinstance(value, dict):
            return {key: self._settled(part) for key, part in value.items()}
        return value


class JsonlRecords(_RecordFile):
    """A .jsonl file: on each line an object, or a list of messages. Blank lines are skipped."""

    def records(self) -> Iterator[Record | Refusal]:
        with open_text(self.file) as self._open:
            for number, line in self._lines(self._open.bytes):
                if not line.isspace():
                    yield self._record(line, self.place(number))

    def _record(self, line: str, where: str) -> Record | Refusal:
        try:
            value = _from_json(line)
        except (ValueError, RecursionError) as error:
            return Refusal(where, f"This line is not JSON: {error}.")
        may_hold_surrogates = _SPELLED_SURROGATE.search(line) or not line.isascii()
        return self._as_record(value, where) if may_hold_surrogates else _as_record(value, where)

    def _as_record(self, value: Any, where: str) -> Record | Refusal:
        try:
            return _as_record(self._settled(value), where)
        except RecursionError:
            return Refusal(where, "This row is nested too deeply.")


class JsonRecords(JsonlRecords):
    """A .json file: a list of objects, which is read as a whole; else one object on each line, as in a .jsonl."""

    def records(self) -> Iterator[Record | Refusal]:
        with open_text(self.file) as self._open:
            text = "".join(line for _, line in self._lines(self._open.bytes))
        if not text.strip():
            return
        try:
            value = _from_json(text)
        except (ValueError, RecursionError) as error:
            lines = text.split("\n")
            if _is_json(next(line for line in lines if line.strip())):
                yield from (
                    self._record(line, self.place(number)) for number, line in enumerate(lines, 1) if line.strip()
                )
                return
            raise InputError(f"The file is not JSON: {error}.", where=self.file.name, fix=_JSON_HINT) from None
        if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
            value = [value]  # one conversation, not rows
        rows = value if isinstance(value, list) else [value]
        for number, row in enumerate(rows, start=1):
            yield self._as_record(row, f"{self.file.name}, row {number}")


class LineRecords(_RecordFile):
    """A .txt: the column `text` holds a line each. Blank lines are passed over."""

    def records(self) -> Iterator[Record | Refusal]:
        with open_text(self.file) as self._open:
            for number, line in self._lines(self._open.bytes):
                if not line.isspace():
                    yield Record({"text": self._settled(line.rstrip("\r\n"))}, self.place(number))


class DelimitedRecords(_RecordFile):
    """A .csv or .tsv file: fields separated by commas or tabs. A field with a separator, quote or line end is
    quoted."""

    def __init__(self, file: TextFile, data: DataConfig, reading: Reading) -> None:
        super().__init__(file, data, reading)
        self._delimiter = "\t" if file.form == "tsv" else ","

    def records(self) -> Iterator[Record | Refusal]:
        with open_text(self.file) as self._open:
            names: list[str] | None = None
            for number, row in self._rows(self._split(self._open.bytes)):
                where = self.place(number)
                if names is None:
                    names = self._header(row, where)
                elif isinstance(row, str):
                    yield Refusal(where, row)
                elif len(row) != len(names):
                    yield Refusal(where, f"This row has {counted(len(row), 'field')}, but the header has {len(names)}.")
                elif self._delimiter == "\t" and any("\t" in field and "\n" in field for field in row):
                    yield Refusal(where, "A quoted field holds tabs and line ends: some quote is not closed.")
                else:
                    yield Record(as_values(zip(names, map(self._settled, row), strict=True)), where, typed=False)

    def _split(self, file: Iterable[bytes]) -> Iterator[str]:
        for _, line in self._lines(file):
            yield from _LINE.findall(line) if "\r" in line else (line,)

    def _rows(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str] | str]]:
        """For each row the number of its first line, and its fields or the reason why it cannot be read. Skips blank
        lines."""
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            number = reader.line_num + 1
            # The limit applies to the whole process, so it is restored for other users of the module.
            limit = csv.field_size_limit(MOST_FIELD_CHARACTERS)
            try:
                row = next(reader, None)
            except csv.Error as error:
                spans = f" (it goes on to line {reader.line_num})" if reader.line_num > number else ""
                yield number, f"The quotes of this row do not fit: {error}{spans}; a quote in a field is doubled."
                continue
            finally:
                csv.field_size_limit(limit)
            if row is None:
                return
            if row:
                yield number, row

    def _header(self, row: list[str] | str, where: str) -> list[str]:
        if isinstance(row, str):
            raise InputError(f"The header cannot be read. {row}", where=where, fix=_HEADER_HINT)
        others = {",": "commas", "\t": "tabs", ";": "semicolons"}
        found = [name for mark, name in others.items() if mark != self._delimiter and mark in row[0]]
        if len(row) == 1 and found:
            raise InputError(
                f"The header is one column, {row[0][:80]!r}, which has {found[0]} in it.",
                where=where,
                fix=f"separate the columns with {others[self._delimiter]}; .csv files have commas, .tsv files tabs",
            )
        return row


class ConllRecords(_RecordFile):
    """CoNLL columns: a line for each token, with the token first and its tag last; a blank line ends a sentence. In a
    file of one column the tokens have no tags.

    Columns are separated by tabs, else by spaces. Lines that begin with # before a sentence are comments, unless they
    have as many columns as the others.
    """

    def records(self) -> Iterator[Record | Refusal]:
        width = self._width()
        with open_text(self.file) as self._open:
            sentence: list[list[str]] = []
            first = 0
            for number, line in self._lines(self._open.bytes):
                columns = _conll_columns(line)
                if not columns or columns[0] == _DOCUMENT_START:
                    if sentence:
                        yield self._sentence(sentence, first, width)
                    sentence = []
                elif sentence or not line.startswith("#") or len(columns) == width:
                    first = first if sentence else number
                    sentence.append(columns)
            if sentence:
                yield self._sentence(sentence, first, width)

    def _width(self) -> int:
        """The number of columns of the first line that cannot be a comment."""
        with open_text(self.file) as file:
            for _, line in self._lines(file.bytes):
                columns = _conll_columns(line)
                if columns and columns[0] != _DOCUMENT_START and not line.startswith("#"):
                    return len(columns)
        return 0

    def _sentence(self, lines: Sequence[list[str]], first: int, width: int) -> Record | Refusal:
        for number, columns in enumerate(lines, start=first):
            if len(columns) != width:
                told = f"This line has {counted(len(columns), 'column')}, but the first of the file has {width}."
                return Refusal(self.place(number), told)
        values = {"tokens": [columns[0] for columns in lines]}
        if width > 1:
            values["tags"] = [columns[-1] for columns in lines]
        return Record(self._settled(values), self.place(first))


def _conll_columns(line: str) -> list[str]:
    line = line.strip(" \t\r\n")
    return (line.split("\t") if "\t" in line else re.split(" +", line)) if line else []


def _as_record(value: object, where: str) -> Record | Refusal:
    if isinstance(value, list):
        return Record({"messages": value}, where)
    if isinstance(value, dict):
        return Record(value, where)
    return Refusal(where, f"This row is {kind_of(value)}, not an object.")


def as_values(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these (name, value) pairs. A name that occurs twice has an `Unusable` value."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        values[name] = REPEATED if name in values else value
    return values


def _from_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=as_values)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
