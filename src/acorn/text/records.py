"""Reads the rows of a SRC for finetuning, one after the other, each with its place.

Rows are in .jsonl, .json, .csv, .tsv, .parquet and CoNLL files and in datasets (`hf:`). Here a .csv file is a table; in
pretraining it is plain text (`sources.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from acorn.config import DataConfig
from acorn.progress import QUIET, Progress
from acorn.text.examples import Record, Refusal
from acorn.text.hub import HubSplit
from acorn.text.reading import Reading
from acorn.text.record_readers import ConllRecords, DelimitedRecords, JsonlRecords, JsonRecords, RecordReader
from acorn.text.record_tables import HubRecords, ParquetRecords
from acorn.text.sources import Part, held_out_parts, resolve
from acorn.text.text_files import EXAMPLES, TextFile

TASK = "reading rows"
"""The name of the work in progress reports."""

_ROWS_BETWEEN = 256  # rows between two progress reports


def read_records(
    sources: Sequence[str], data: DataConfig, progress: Progress = QUIET, *, named_by: str = "--input"
) -> Iterator[Record | Refusal]:
    """The rows of all `sources`. A dataset gives those of its test split if it has one, else of its training split.

    Args:
        data: its `encoding` and `errors` are used.
        named_by: the option or setting that names the sources, for messages.

    Raises:
        UsageError: a source cannot be understood.
        InputError: one matches nothing, cannot be read, is damaged, or is not text under `errors = "strict"`.
    """
    parts = held_out_parts(resolve(sources, data, named_by, progress, endings=EXAMPLES), "test")
    return records_of(parts, data, Reading(data.errors), progress)


def records_of(
    parts: Sequence[Part], data: DataConfig, reading: Reading, progress: Progress = QUIET
) -> Iterator[Record | Refusal]:
    """The rows of `parts`, in order. `reading` gets the counts of the files.

    Raises:
        InputError: a part cannot be read, is damaged, or is not text under `errors = "strict"`.
    """
    total = sum(part.size for part in parts if isinstance(part, TextFile))
    total = total if all(isinstance(part, TextFile) for part in parts) else 0
    done = 0
    for part in parts:
        reader = open_records(part, data, reading)
        for number, record in enumerate(reader.records()):
            if number % _ROWS_BETWEEN == 0:
                progress.at(TASK, done + reader.bytes_read, total)
            yield record
        done += part.size if isinstance(part, TextFile) else reader.bytes_read
    progress.at(TASK, done, total)
    progress.end(TASK)


def open_records(part: Part, data: DataConfig, reading: Reading) -> RecordReader:
    """A new reader of the rows of `part`."""
    if isinstance(part, HubSplit):
        return HubRecords(part, data, reading)
    if part.form == "parquet":
        return ParquetRecords(part, data, reading)
    if part.form in ("csv", "tsv"):
        return DelimitedRecords(part, data, reading)
    kinds = {"jsonl": JsonlRecords, "json": JsonRecords, "conll": ConllRecords}
    return kinds[part.form](part, data, reading)
