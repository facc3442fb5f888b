"""Texts to predict on: rows of which the text alone is read, as a stream, so that a file can be of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from acorn.config import Config
from acorn.counting import counted
from acorn.progress import QUIET, Progress
from acorn.text.example_shapes import to_input
from acorn.text.examples import Refusal
from acorn.text.reading import Reading, names_of
from acorn.text.records import records_of
from acorn.text.refusals import left_out, no_example, rows_refused
from acorn.text.sources import held_out_parts, resolve
from acorn.text.text_files import INPUTS, TextFile

NAMED_BY = "--input"


@dataclass(frozen=True)
class Input:
    """A text to predict on.

    Attributes:
        text: of a sentence whose words get tags, the words between white space.
        where: the place, as `mails.csv, line 12`.
    """

    text: str
    where: str


class Inputs:
    """The texts of rows. They are read twice: first all are checked, so that a fault is found before any work.

    Rows are those of finetuning, and the lines of a .txt. Other columns than the text's, such as labels, are not read.
    For `tag`, a sentence is a list of tokens or a text, which is split into words at white space.

    Args:
        sources: files, globs, folders or `hf:OWNER/NAME`; of a dataset the test split is read, else the training split.
        config: `data.encoding`, `data.errors`, `finetune.task` and `finetune.text_field` act.

    Attributes:
        count: how many texts there are.

    Raises:
        UsageError: a source cannot be understood.
        InputError: one matches nothing or cannot be read, or a row has no text (left out under `data.errors = "skip"`).
    """

    def __init__(self, sources: Sequence[str], config: Config, progress: Progress = QUIET) -> None:
        self._config = config
        self._parts = held_out_parts(resolve(sources, config.data, NAMED_BY, progress, endings=INPUTS), "test")
        where = names_of(part.name for part in self._parts)
        if lines := [part.name for part in self._parts if isinstance(part, TextFile) and part.form == "txt"]:
            what = "sentence, split into words at white space" if config.finetune.task == "tag" else "text"
            progress.note(f"Each line is a {what}: {names_of(lines)}.")
        reading, refused, self.count = Reading(config.data.errors), [], 0
        for row in self._rows(reading, progress):
            if isinstance(row, Refusal):
                refused.append(row)
            else:
                self.count += 1
        rows = self.count + len(refused)
        if refused and config.data.errors != "skip":
            raise rows_refused(where, refused, rows)
        if not self.count:
            raise no_example(where, refused)
        if refused:
            progress.note(left_out(refused, rows))
        if reading.counts.replaced:
            progress.note(f"{counted(reading.counts.replaced, 'text')} with U+FFFD for bytes that are not text.")

    def __iter__(self) -> Iterator[Input]:
        rows = self._rows(Reading(self._config.data.errors), QUIET)
        return (row for row in rows if isinstance(row, Input))

    def _rows(self, reading: Reading, progress: Progress) -> Iterator[Input | Refusal]:
        finetune = self._config.finetune
        task = finetune.task
        assert task in ("classify", "regress", "tag")
        for record in records_of(self._parts, self._config.data, reading, progress):
            found = record if isinstance(record, Refusal) else to_input(record, task, finetune)
            if isinstance(found, Refusal):
                yield found
            else:
                yield Input(found if isinstance(found, str) else " ".join(found), record.where)
