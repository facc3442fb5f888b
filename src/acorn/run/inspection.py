"""What finetuning would make of examples, without training: by the code that a run uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from acorn.checkpoint.model_chat import chat_record
from acorn.config import Config
from acorn.data.example_folder import ExampleFolder, manifest_of
from acorn.data.examples import EncodedSide, encode_side, none_fits, resolved_overlong
from acorn.errors import InputError
from acorn.progress import QUIET, Progress
from acorn.run.finetune_config import check_finetuning
from acorn.run.initial_model import load_initial_model
from acorn.text.example_splits import ExampleCounts, ExampleSplits
from acorn.text.examples import Example, Labeled, Refusal, Tagged, Task
from acorn.text.reading import names_of
from acorn.text.refusals import no_example
from acorn.tokenizer.chat_format import Encoded
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train.task import task_of_run


@dataclass(frozen=True)
class InspectedExample:
    """An example that would be used.

    Attributes:
        side: `train`, `valid` or `test`.
        tokens: its ids, and which of them are learned.
    """

    example: Example
    side: str
    tokens: Encoded


@dataclass(frozen=True)
class Inspection:
    """What finetuning would make of rows.

    Attributes:
        task: None where all rows were refused before it was known.
        reason: why `auto` chose it, within a sentence; "" where it was named.
        context: tokens that the model reads at most.
        overlong: what is done about longer examples.
        examples: those that would be used, in the order of reading.
        refused: the rows and examples that cannot be used.
        sides: name -> its encoded examples.
        counts: name -> what became of its rows.
        automatic: validation is a share of the training examples.
        overlap: held-out side -> share of its distinct inputs that are inputs of training too.
        labels: the labels or tags, in the order of their ids.
        fault: why no run could be started; None: one could, unless rows were refused.
    """

    tokenizer: Tokenizer
    task: Task | None
    reason: str = ""
    context: int = 0
    overlong: str = ""
    examples: Sequence[InspectedExample] = ()
    refused: Sequence[Refusal] = ()
    sides: Mapping[str, EncodedSide] = field(default_factory=dict)
    counts: Mapping[str, ExampleCounts] = field(default_factory=dict)
    automatic: bool = False
    overlap: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[str] = ()
    fault: InputError | None = None

    @property
    def lengths(self) -> list[int]:
        """Tokens that would be read of each example, also of those that are too long."""
        return [length for side in self.sides.values() for length in side.lengths]

    def label_counts(self, side: str) -> Counter[str]:
        """Label -> examples of a side that have it; tag -> words that have it."""
        counts: Counter[str] = Counter()
        for example in self.sides[side].examples:
            counts.update(example.tags if isinstance(example, Tagged) else ())
            counts.update(example.labels if isinstance(example, Labeled) else ())
        return counts

    def values(self, side: str) -> list[float]:
        """The values of a side's examples (regress)."""
        labels = (example.label for example in self.sides[side].examples if isinstance(example, Labeled))
        return [label for label in labels if isinstance(label, float)]


def inspect_examples(config: Config, progress: Progress = QUIET) -> Inspection:
    """Reads and encodes the rows that `config` names, as a run of it would.

    Rows that a run would refuse are collected. What else would end a run is raised, or, where the examples can be shown
    nevertheless, kept as `fault`.

    Args:
        config: as `finetune_config` gives it.

    Raises:
        UsageError, InputError, DamageError: as `finetune`.
    """
    check_finetuning(config)
    config, initial = load_initial_model(config, progress)
    refused: list[Refusal] = []
    where = names_of(config.data.source)
    try:
        splits = ExampleSplits.read(config.data, config.finetune, progress, refused=refused)
    except InputError as error:
        if not refused:
            raise
        return Inspection(initial.tokenizer, None, refused=refused, fault=error)
    fault: InputError | None = None
    read = [example for examples in splits.sides.values() for example in examples]
    if not read:
        fault = no_example(where, refused)
        return Inspection(initial.tokenizer, splits.task, splits.reason, refused=refused, fault=fault)
    try:
        splits.settle(config.data, progress)
    except InputError as error:
        fault = error
    chat = chat_record(initial)
    found = ExampleFolder(Path(), manifest_of(splits, {"chat": chat} if chat else {}), splits.sides)
    task = task_of_run(found, config.finetune, initial.tokenizer)
    overlong = resolved_overlong(splits.task, config.finetune.overlong)
    context = config.model.block_size
    sides = {
        name: encode_side(name, examples, task.encoder, context, overlong, progress, refused)
        for name, examples in splits.sides.items()
    }
    used = {
        id(example): InspectedExample(example, name, tokens.whole)
        for name, side in sides.items()
        for example, tokens in zip(side.examples, side.tokens, strict=True)
    }
    for name, side in sides.items():
        if side.lengths and side.dropped == len(side.lengths):
            fault = fault or none_fits(name, side.dropped, context)
    if not used:
        fault = fault or no_example(where, refused)
    return Inspection(
        task.tokenizer,
        splits.task,
        splits.reason,
        context,
        overlong,
        [used[id(example)] for example in read if id(example) in used],
        refused,
        sides,
        splits.counts,
        splits.automatic,
        splits.overlap,
        splits.labels,
        fault,
    )
