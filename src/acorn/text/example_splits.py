"""Training, validation and test examples: what finetuning consumes.

Held-out examples are those that the config names, else those of the source's own splits, else a share of the training
examples (see `example_sides.py`). Exact repeats are dropped from training, before the split if acorn splits. All
examples are held in memory.

A row that cannot become an example is refused: with `data.errors = "skip"` it is left out, counted and reported;
otherwise it is an error, whose message names the first such rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acorn.config import DataConfig, FinetuneConfig
from acorn.counting import counted
from acorn.errors import InputError, UsageError
from acorn.figure_names import SPLITS
from acorn.progress import QUIET, Progress
from acorn.text.example_facts import check_labels, has_list, has_lists, labels_of, told_facts
from acorn.text.example_shapes import columns_of, task_of, to_example, unread_columns
from acorn.text.example_sides import groups_of, held_out_inputs, input_digest
from acorn.text.examples import Example, Labeled, Record, Refusal, Tagged, Task
from acorn.text.label_values import shown
from acorn.text.reading import Reading, names_of
from acorn.text.records import records_of
from acorn.text.refusals import left_out, no_example, rows_refused
from acorn.text.sources import Part, held_out_parts, merged, resolve
from acorn.text.text_files import EXAMPLES

NAMES = ("train", "valid", "test")
_MOST_UNREAD = 100  # names of columns that are kept: an object of JSON can have a new one in every row


@dataclass
class ExampleCounts:
    """Counts of the rows of one side. Rows that an automatic split holds out are counted with training."""

    rows: int = 0
    examples: int = 0
    refused: int = 0
    repeats: int = 0  # dropped, under data.dedup
    overlap: int = 0  # dropped, under data.overlap = "drop"
    replaced: int = 0  # texts with U+FFFD, under data.errors = "replace"


class ExampleSplits:
    """The examples of each side.

    Attributes:
        task: the task of the examples.
        reason: why `auto` chose the task, as part of a sentence; empty if the task was named.
        labels: in the order of their ids (classify, tag); empty for other tasks.
        multi_label: each example has a list of labels.
        sides: name -> its examples, in the order of reading.
        automatic: acorn held the validation side out of the training examples.
        parts: name -> the files and datasets that were read.
        counts: name -> the counts of its rows.
        refused: the rows that became no example, in the order of reading.
        overlap: held-out side -> share of its distinct inputs that are inputs of training too.
    """

    def __init__(self, task: Task, reason: str, parts: Mapping[str, Sequence[Part]]) -> None:
        self.task, self.reason = task, reason
        self.labels: tuple[str, ...] = ()
        self.multi_label = False
        self.sides: dict[str, list[Example]] = {}
        self.automatic = False
        self.parts = dict(parts)
        self.counts: dict[str, ExampleCounts] = {}
        self.refused: list[Refusal] = []
        self.overlap: dict[str, float] = {}

    @classmethod
    def open(
        cls, data: DataConfig, finetune: FinetuneConfig, progress: Progress = QUIET, out: Path | None = None
    ) -> ExampleSplits:
        """Reads all rows that `data` names.

        Args:
            finetune: its task ("" is `auto`), labels and fields are used.
            out: the run folder; if a source folder contains it, it is not read.

        Raises:
            UsageError: a source cannot be understood, two tasks fit, or `finetune.labels` does not fit the task.
            InputError: a source matches nothing or cannot be read; a row is refused (see above); a side is empty; the
                labels cannot be learned; or sides overlap and `data.overlap` is "fail".
        """
        splits = cls.read(data, finetune, progress, out)
        splits.settle(data, progress)
        return splits

    @classmethod
    def read(
        cls,
        data: DataConfig,
        finetune: FinetuneConfig,
        progress: Progress = QUIET,
        out: Path | None = None,
        refused: list[Refusal] | None = None,
    ) -> ExampleSplits:
        """The first half of `open`: the rows as they were read, without an automatic split.

        Args:
            refused: takes the refused rows, which are no error then, even if a side is left without an example.
        """
        return _Reader(data, finetune, progress, refused=refused).read(example_parts(data, progress, out))

    def settle(self, data: DataConfig, progress: Progress = QUIET) -> None:
        """The second half of `open`: checks the labels, makes the sides, and tells what a person should know."""
        check_labels(self.task, self.sides["train"], f"train: {_where(self.parts['train'])}")
        if self.automatic:
            _split(self, data.valid_fraction)
        _check_sides(self, data)
        _settle_overlap(self, data, progress)
        for told in told_facts(self.task, self.sides, self.labels):
            progress.note(told)

    @classmethod
    def open_held_out(
        cls,
        sources: Sequence[str],
        data: DataConfig,
        finetune: FinetuneConfig,
        progress: Progress = QUIET,
        *,
        multi_label: bool = False,
        named_by: str = "--input",
    ) -> ExampleSplits:
        """Reads all rows of `sources` as one side, for a model with the task and labels of `finetune`.

        Args:
            multi_label: the model gives a list of labels.
            named_by: the option or setting that names the sources; also the name of the side.

        Raises:
            UsageError, InputError: for the same reasons as in `open`.
        """
        parts = {named_by: held_out_parts(resolve(sources, data, named_by, progress, endings=EXAMPLES), "test")}
        splits = _Reader(data, finetune, progress, multi_label).read(parts)
        _check_sides(splits, data)
        return splits


def example_parts(data: DataConfig, progress: Progress = QUIET, out: Path | None = None) -> dict[str, Sequence[Part]]:
    """Side -> the files and datasets that `data` names for it. They are found, but not read.

    Raises:
        UsageError: a source cannot be understood.
        InputError: one matches nothing.
    """
    own = merged(resolve(data.source, data, "data.source", progress, out, EXAMPLES))
    parts: dict[str, Sequence[Part]] = {"train": own["train"]}
    for side, named in (("valid", data.valid_source), ("test", data.test_source)):
        if named:
            found = resolve(named, data, f"data.{side}_source", progress, out, EXAMPLES)
            parts[side] = held_out_parts(found, side)
        elif side in own:
            parts[side] = own[side]
    return parts


class _Reader:
    """Reads the rows of all sides, finds the task and the labels, and refuses what does not fit them.

    Args:
        multi_label: whether an example has a list of labels; None: as the first side has it.
        refused: takes the refused rows, which are no error then; None: they are what `data.errors` says.
    """

    def __init__(
        self,
        data: DataConfig,
        finetune: FinetuneConfig,
        progress: Progress,
        multi_label: bool | None = None,
        refused: list[Refusal] | None = None,
    ) -> None:
        self.data, self.finetune, self.progress, self.multi_label = data, finetune, progress, multi_label
        self.refused: list[Refusal] = [] if refused is None else refused
        self.collects = refused is not None

    def read(self, parts: Mapping[str, Sequence[Part]]) -> ExampleSplits:
        first = next(iter(parts))
        rows, reading = self._rows(parts[first])
        task, reason = self._task(rows, f"{first}: {_where(parts[first])}")
        splits = ExampleSplits(task, reason, parts)
        splits.refused = self.refused
        splits.automatic = first == "train" and "valid" not in parts
        for side in parts:
            if side != first:
                rows, reading = self._rows(parts[side])
            splits.counts[side] = ExampleCounts(rows=len(rows), replaced=reading.counts.replaced)
            examples = self._examples(rows, splits, side)
            if side == first:
                splits.labels = labels_of(task, examples, self.finetune.labels)
                splits.multi_label = has_lists(examples) if self.multi_label is None else self.multi_label
            splits.sides[side] = self._without_misfits(examples, splits, side)
            self._tell_refused(splits, side)
        return splits

    def _rows(self, parts: Sequence[Part]) -> tuple[list[Record | Refusal], Reading]:
        reading = Reading(self.data.errors)
        return list(records_of(parts, self.data, reading, self.progress)), reading

    def _task(self, rows: Sequence[Record | Refusal], where: str) -> tuple[Task, str]:
        named = self.finetune.task
        records = [row for row in rows if isinstance(row, Record)]
        if not records:
            refused = [row for row in rows if isinstance(row, Refusal)]
            self.refused += refused
            strict = refused and self.data.errors != "skip" and not self.collects
            raise rows_refused(where, refused, len(rows)) if strict else no_example(where, refused)
        if named == "" or named == "auto":
            task, reason = task_of(records, self.finetune)
            self.progress.note(f"The task is {task}: {reason}.")
        else:
            task, reason = named, ""
        if self.finetune.labels and task not in ("classify", "tag"):
            raise UsageError(
                f"The task {task} has no labels to name.",
                where="finetune.labels",
                fix="leave it out, or change the task",
            )
        return task, reason

    def _examples(self, rows: Sequence[Record | Refusal], splits: ExampleSplits, side: str) -> list[Example]:
        counts = splits.counts[side]
        unread: dict[str, None] = {}
        examples: list[Example] = []
        repeats: set[Example] | None = set() if side == "train" and self.data.dedup else None
        stripped, label_column = 0, columns_of(splits.task, self.finetune)[1]
        for row in rows:
            example = to_example(row, splits.task, self.finetune) if isinstance(row, Record) else row
            if isinstance(row, Record) and len(unread) < _MOST_UNREAD:
                unread |= dict.fromkeys(unread_columns(row, splits.task, self.finetune))
            if isinstance(example, Refusal):
                splits.refused.append(example)
                counts.refused += 1
            elif repeats is not None and example in repeats:
                counts.repeats += 1
            else:
                examples.append(example)
                if repeats is not None:
                    repeats.add(example)
                stripped += isinstance(row, Record) and _is_stripped(row.values.get(label_column), example)
        if unread:
            self.progress.note(f"{side}: not read: {names_of(repr(name[:40]) for name in unread)}.")
        if stripped:
            self.progress.note(f"{side}: {counted(stripped, 'label')} lost the white space around them.")
        if counts.replaced:
            self.progress.note(f"{side}: {counted(counts.replaced, 'text')} with U+FFFD for bytes that are not text.")
        if counts.repeats:
            before = " before the split" if splits.automatic else ""
            self.progress.note(
                f"{side}: {counted(counts.repeats, 'exact repeat')} of {len(rows):,} rows "
                f"{'was' if counts.repeats == 1 else 'were'} dropped{before} (data.dedup=false keeps them)."
            )
        return examples

    def _without_misfits(self, examples: Sequence[Example], splits: ExampleSplits, side: str) -> list[Example]:
        """`examples` without those whose label is not among the task's."""
        known = set(splits.labels)
        whose = "finetune.labels does not have" if self.finetune.labels else "training never saw"
        if self.multi_label is not None:  # rows for a model that is trained already
            whose = "the model does not know: its training never saw it"
        kept: list[Example] = []
        for example in examples:
            labels = example.labels if isinstance(example, Labeled) else ()
            labels = example.tags if isinstance(example, Tagged) else labels
            noun = "tag" if isinstance(example, Tagged) else "label"
            unknown = next((label for label in labels if label not in known), None)
            if splits.task == "classify" and has_list(example) != splits.multi_label:
                reason = f"Its label is {'one, not a list' if splits.multi_label else 'a list, not one'}."
            elif unknown is not None:
                reason = f"It has the {noun} {shown(unknown)}, which {whose}."
            else:
                kept.append(example)
                continue
            splits.refused.append(Refusal(example.where, reason))
            splits.counts[side].refused += 1
        splits.counts[side].examples = len(kept)
        return kept

    def _tell_refused(self, splits: ExampleSplits, side: str) -> None:
        """Reports the refused rows of a side.

        Raises:
            InputError: there are some, and `data.errors` is not "skip".
        """
        counts = splits.counts[side]
        if not counts.refused or self.collects:
            return
        refused = splits.refused[-counts.refused :]
        if self.data.errors != "skip":
            raise rows_refused(f"{side}: {_where(splits.parts[side])}", refused, counts.rows)
        if not counts.examples:
            raise no_example(f"{side}: {_where(splits.parts[side])}", refused)
        self.progress.note(f"{side}: {left_out(refused, counts.rows)}")


def _split(splits: ExampleSplits, share: float) -> None:
    """Takes the validation side out of training."""
    every = splits.sides["train"]
    groups: dict[bytes, set[object]] = {}
    digests = [input_digest(example) for example in every]
    for digest, example in zip(digests, every, strict=True):
        groups.setdefault(digest, set()).update(groups_of(example))
    held_out = held_out_inputs(groups, share)
    pairs = list(zip(digests, every, strict=True))
    test = {"test": splits.sides["test"]} if "test" in splits.sides else {}
    splits.sides = {
        "train": [example for digest, example in pairs if digest not in held_out],
        "valid": [example for digest, example in pairs if digest in held_out],
        **test,
    }
    splits.counts["valid"] = ExampleCounts()
    for side in ("train", "valid"):
        splits.counts[side].examples = len(splits.sides[side])


def _check_sides(splits: ExampleSplits, data: DataConfig) -> None:
    """Raises InputError if a side has no example."""
    for side, examples in splits.sides.items():
        if examples:
            continue
        sizes = ", ".join(
            f"{counted(len(found), 'example')} for {SPLITS[name].lower()}" for name, found in splits.sides.items()
        )
        if splits.automatic and side in ("train", "valid"):
            raise InputError(
                f"There are too few examples to hold out a part of them for validation: {sizes}. All examples "
                "with the same input are on one side.",
                where=f"data.valid_fraction = {data.valid_fraction}",
                fix="give more examples, or name validation examples in data.valid_source",
            )
        raise no_example(f"{side}: {_where(splits.parts[side])}", [])


def _settle_overlap(splits: ExampleSplits, data: DataConfig, progress: Progress) -> None:
    """Reports how many held-out inputs are also in training, and applies `data.overlap`."""
    digests = [input_digest(example) for example in splits.sides["train"]]
    training = set(digests)
    held_out = {
        side: {input_digest(example) for example in examples}
        for side, examples in splits.sides.items()
        if side != "train"
    }
    splits.overlap = {side: len(found & training) / len(found) for side, found in held_out.items()}
    shares = [
        f"{len(found & training):,} of {len(found):,} distinct {side} inputs ({splits.overlap[side]:.2%})"
        for side, found in held_out.items()
        if splits.overlap[side]
    ]
    if not shares:
        return
    what = f"{' and '.join(shares)} are also inputs of training"
    if data.overlap == "fail":
        hint = 'take them out of the training rows, or set data.overlap to "drop" or "warn"'
        raise InputError(f"{what}.", where='data.overlap = "fail"', fix=hint)
    if data.overlap == "drop":
        dropped = set().union(*held_out.values())
        pairs = zip(digests, splits.sides["train"], strict=True)
        kept = [example for digest, example in pairs if digest not in dropped]
        counts = splits.counts["train"]
        counts.overlap = counts.examples - len(kept)
        counts.examples = len(kept)
        splits.sides["train"] = kept
        if not kept:
            raise InputError(
                f"{what}; without them training has no example.",
                where='data.overlap = "drop"',
                fix='give training rows with other inputs, hold out other rows, or set data.overlap to "warn"',
            )
    progress.note(f"{what}{', and were dropped from training' if data.overlap == 'drop' else ''}.")


def _is_stripped(given: object, example: Example) -> bool:
    """Whether the row has white space around the label."""
    label = example.label if isinstance(example, Labeled) else None
    return isinstance(given, str) and given.strip() == label != given


def _where(parts: Sequence[Part]) -> str:
    return names_of(part.name for part in parts)
