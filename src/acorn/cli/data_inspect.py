"""`acorn data inspect`: how rows become the tokens that `acorn finetune` trains on."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.cli.finetune import TASKS, check_task, split_base
from acorn.cli.output import check_stdout, print_json
from acorn.counting import counted
from acorn.errors import UsageError
from acorn.runtime.address_space import check_address_space

if TYPE_CHECKING:
    from acorn.run.inspection import InspectedExample, Inspection
    from acorn.text.examples import Example

MOST_LABELS = 50
"""Labels whose counts are listed; the others are counted."""


def inspect(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN [KEY=VALUE]...", help="The run or model folder to start from, then settings of finetuning."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC", help="Rows to train on: .jsonl, .json, .csv, .tsv, .parquet or hf:OWNER/NAME."),
    ] = None,
    task: Annotated[str, typer.Option(help=f"{', '.join(TASKS)}; auto: by the columns of the rows.")] = "auto",
    valid: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC", help="Validation rows; by default a share of the training rows."),
    ] = None,
    test: Annotated[list[str] | None, typer.Option(metavar="SRC", help="Test rows; by default none.")] = None,
    rows: Annotated[int, typer.Option(metavar="N", help="Examples, and refused rows, to show.")] = 5,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: N examples, and all refused rows.")
    ] = False,
) -> None:
    """Show the tokens that finetuning trains on, and what it refuses.

    Nothing is trained or written.
    """
    base, overrides = split_base(arguments or [])
    if base is None:
        raise UsageError("No model is named.", where="acorn data inspect", fix="name a run or a model folder first")
    check_task(task)
    if rows < 0:
        raise UsageError(f"rows cannot be {rows}.", where="--rows", fix="give 0 or more")
    check_stdout()
    check_address_space("torch")
    from acorn.report.terminal import TaskProgress
    from acorn.run.finetune_config import finetune_config
    from acorn.run.inspection import inspect_examples

    config = finetune_config(base, data or [], valid=valid or [], test=test or [], task=task, overrides=overrides)
    progress = TaskProgress()
    try:
        found = inspect_examples(config, progress)
    finally:
        progress.close()
    if as_json:
        print_json(
            {
                "task": found.task,
                "examples": len(found.examples),
                "refused": [{"where": refusal.where, "reason": refusal.reason} for refusal in found.refused],
                "rows": [
                    {"ids": example.tokens.ids, "trained": example.tokens.trained} for example in found.examples[:rows]
                ],
            }
        )
    else:
        _print(found, rows)
    if found.fault:
        sys.stdout.flush()  # the error follows on stderr
        raise found.fault


def _print(found: Inspection, rows: int) -> None:
    print(f"task      {found.task or 'not known'}" + (f": {found.reason}" if found.reason else ""))
    for name, side in found.sides.items():
        print(f"{name:<9} {_side(found, name)}")
        if shown := _outputs(found, name):
            print(f"          {shown}")
        if found.overlap.get(name):
            print(f"          {found.overlap[name]:.2%} of its distinct inputs are also inputs of training")
        if cut := side.dropped + side.cut:
            print(f"          {_too_long(found)}: {counted(cut, 'example')}")
    if found.lengths:
        _print_lengths(found)
    if found.refused:
        _print_refused(found, rows)
    if shown_examples := found.examples[:rows]:
        _print_examples(found, shown_examples)


def _side(found: Inspection, name: str) -> str:
    """The numbers of a side's examples and rows."""
    counts, side = found.counts[name], found.sides[name]
    gone = {"refused": counts.refused + side.refused, "exact repeats": counts.repeats, "also held out": counts.overlap}
    left_out = ", ".join(f"{count:,} {what}" for what, count in gone.items() if count)
    is_split_off = name == "valid" and found.automatic
    source = ", a share of the rows (data.valid_fraction)" if is_split_off else f" of {counted(counts.rows, 'row')}"
    return f"{counted(len(side.examples), 'example')}{source}" + (f" ({left_out})" if left_out else "")


def _outputs(found: Inspection, name: str) -> str:
    """Labels with counts, or the range of values; empty for tasks without."""
    from acorn.text.label_values import shown

    if values := found.values(name):
        return f"values from {min(values):g} to {max(values):g}, median {statistics.median(values):g}"
    counts = found.label_counts(name)
    told = [f"{shown(label)} {counts[label]:,}" for label in found.labels[:MOST_LABELS]]
    more = len(found.labels) - MOST_LABELS
    return ", ".join(told) + (f" and {counted(more, 'other label')}" if more > 0 else "")


def _too_long(found: Inspection) -> str:
    done = {"drop": "left out", "cut": "cut at the end", "cut_prompt": "cut at the beginning"}[found.overlong]
    return f"longer than the context of {found.context:,} tokens, {done} (finetune.overlong)"


def _print_lengths(found: Inspection) -> None:
    from acorn.report.histogram import length_histogram

    lengths = found.lengths
    print(
        f"\nTokens of an example: median {statistics.median(lengths):,g}, longest {max(lengths):,}. "
        f"The model reads {found.context:,} (block_size)."
    )
    longer = sum(length > found.context for length in lengths)
    if longer:
        done = "refused" if found.overlong == "refuse" else _too_long(found).rpartition(", ")[2].partition(" (")[0]
        print(f"{counted(longer, 'example')} {'is' if longer == 1 else 'are'} longer: {done} (finetune.overlong).")
    for line in length_histogram(lengths, found.context, _drawable("█", "#")):
        print(f"  {line}")


def _print_refused(found: Inspection, rows: int) -> None:
    from acorn.report.formats import printable

    print(f"\nRefused: {counted(len(found.refused), 'row')}")
    for refusal in found.refused[:rows]:
        print(printable(f"  {refusal.where}: {refusal.reason}"))
    if len(found.refused) > rows:
        print(f"  and {len(found.refused) - rows:,} more (--rows shows more)")


def _print_examples(found: Inspection, examples: Sequence[InspectedExample]) -> None:
    from rich.console import Console
    from rich.text import Text

    from acorn.report.formats import printable
    from acorn.report.token_marks import BEGIN, END, marked_text

    console = Console(file=sys.stdout, force_terminal=sys.stdout.isatty(), highlight=False)
    colored = console.color_system is not None and not console.no_color
    has_labels = found.task not in ("chat", "complete")
    what = "Tokens at which a label is learned" if has_labels else "Tokens that are trained"
    marks = "green" if colored else f"between {BEGIN} and {END}"
    print(f"\n{what} are {marks}. Control tokens are shown by name, line ends as \\n.")
    for example in examples:
        facts = [counted(len(example.tokens.ids), "token")]
        if not has_labels:
            facts.append(f"{sum(example.tokens.trained):,} of them trained")
        print(printable(f"\n{example.example.where} ({example.side}; {', '.join(facts)}){_label(example.example)}"))
        for line in marked_text(found.tokenizer, example.tokens, colored=colored).split("\n"):
            console.print(Text("  ") + line, soft_wrap=True)


def _label(example: Example) -> str:
    """The label, value or tags of an example, to stand after other text; empty for tasks without."""
    from acorn.text.examples import Labeled, Tagged

    if isinstance(example, Labeled):
        label = example.label
        return f": {label:g}" if isinstance(label, float) else f": {', '.join(example.labels) or 'no label'}"
    return f": {' '.join(example.tags)}" if isinstance(example, Tagged) else ""


def _drawable(character: str, otherwise: str) -> str:
    """`character` where stdout's encoding has it."""
    try:
        character.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return otherwise
    return character
