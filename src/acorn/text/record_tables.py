"""Reads the rows of Arrow tables, with their places: .parquet files and Hub datasets.

If a dataset names its classes (`ClassLabel`), rows have these names in place of numbers, and null in place of -1. A
column that cannot be read is `Unusable` in every row, which is an error only if the task needs it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text.examples import Record, Refusal, Unusable
from acorn.text.hub import HubSplit, tables_of
from acorn.text.reading import Reading
from acorn.text.record_readers import NOT_TEXT, as_values
from acorn.text.text_files import TextFile

_BATCH_ROWS = 1024


class ParquetRecords:
    """The rows of a .parquet file."""

    def __init__(self, file: TextFile, data: DataConfig, reading: Reading) -> None:
        self.file, self.reading = file, reading
        self._share_read = 0.0

    @property
    def bytes_read(self) -> int:
        return int(self._share_read * self.file.size)

    def records(self) -> Iterator[Record | Refusal]:
        import pyarrow  # a quarter of a second, for this format alone
        import pyarrow.parquet

        number = 0
        self.file.check_unchanged()
        try:
            options = {"pre_buffer": False, "page_checksum_verification": True}
            with pyarrow.parquet.ParquetFile(self.file.path, **options) as table:
                for batch in table.iter_batches(_BATCH_ROWS):
                    for values in _rows(batch, self.reading):
                        number += 1
                        yield Record(values, f"{self.file.name}, row {number}")
                    self._share_read = number / table.metadata.num_rows
        except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:  # a column's name may be damaged, too
            self.file.check_unchanged()
            raise InputError(
                f"The file is cut short or damaged: {error}.",
                where=f"{self.file.name}, after row {number} ({self.file.size:,} bytes)",
                fix="copy or download it again",
            ) from error
        self.file.check_unchanged()


class HubRecords:
    """The rows of a split of a dataset."""

    def __init__(self, split: HubSplit, data: DataConfig, reading: Reading) -> None:
        self.split, self.reading = split, reading
        self.bytes_read = 0  # of Arrow's buffers

    def records(self) -> Iterator[Record | Refusal]:
        number = 0
        for table in tables_of(self.split):
            for values in _rows(table, self.reading):
                number += 1
                yield Record(values, f"{self.split.name}, row {number}")
            self.bytes_read += table.nbytes


def _rows(table: Any, reading: Reading) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow table or batch, column -> value."""
    names = table.schema.names
    classes = _class_names(table.schema)
    columns = [
        _named(_values(column, reading), classes.get(name)) for name, column in zip(names, table.columns, strict=True)
    ]
    for row in zip(*columns, strict=True):
        yield as_values(zip(names, row, strict=True))


def _values(column: Any, reading: Reading) -> list[Any]:
    """The values of a column as Python objects."""
    import pyarrow

    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decoded(value, reading) for value in column.cast(_with_bytes(column.type)).to_pylist()]
    except (ValueError, OverflowError, pyarrow.ArrowException) as error:  # such as a time that Python cannot represent
        values = [Unusable(f"cannot be read ({error})")] * len(column)
    return values


def _with_bytes(kind: Any) -> Any:
    """An Arrow type with bytes in place of text."""
    import pyarrow

    types = pyarrow.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pyarrow.large_binary()
    if types.is_dictionary(kind):
        return _with_bytes(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind):
        return pyarrow.large_list(kind.value_field.with_type(_with_bytes(kind.value_type)))
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_with_bytes(field.type)) for field in kind])
    return kind


def _decoded(value: Any, reading: Reading) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            if reading.errors != "replace":
                return Unusable(NOT_TEXT)
            reading.counts.replaced += 1
            return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_decoded(part, reading) for part in value]
    if isinstance(value, dict):
        return {key: _decoded(part, reading) for key, part in value.items()}
    return value


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Column -> the names of its classes, from the metadata that the library `datasets` writes into the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        named = {column: _names_in(feature) for column, feature in features.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}  # no class names
    return {column: names for column, names in named.items() if names}


def _names_in(feature: Any) -> list[str]:
    """The class names of a feature that is a class or a list of classes; else empty."""
    if isinstance(feature, list) and len(feature) == 1:  # the older form of a list
        return _names_in(feature[0])
    if not isinstance(feature, Mapping):
        return []
    if feature.get("_type") in ("List", "LargeList", "Sequence"):
        return _names_in(feature.get("feature"))
    names = feature.get("names")
    named = feature.get("_type") == "ClassLabel" and isinstance(names, list)
    return [str(name) for name in names] if named and isinstance(names, list) else []


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    if not names:
        return values

    def name_of(value: Any) -> Any:
        if isinstance(value, list):
            return [name_of(part) for part in value]
        if not isinstance(value, int) or value >= len(names):
            return value
        return names[value] if value >= 0 else None

    return [name_of(value) for value in values]
