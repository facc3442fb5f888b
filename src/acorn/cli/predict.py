"""`acorn predict`: labels or values of texts, or tags of their words, from a finetuned model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from acorn.cli.arguments import path_from
from acorn.cli.output import check_stdout, json_text, readable
from acorn.cli.text_arguments import known_settings, split_settings
from acorn.counting import counted
from acorn.errors import UsageError

if TYPE_CHECKING:
    from acorn.checkpoint.load import LoadedModel
    from acorn.config import Config
    from acorn.evaluate.predict import Prediction
    from acorn.progress import Progress
    from acorn.runtime.device import Runtime
    from acorn.text.examples import Task
    from acorn.text.inputs import Input, Inputs

SHOWN_CHARACTERS = 60
"""Of a text, beside its label on a terminal."""

WIDEST_LABEL = 24
"""Characters of the column of labels; longer ones push the text to the right."""

TASK = "Predicting"
"""What progress calls it."""


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", parser=path_from("RUN"), help="A run, checkpoint or model folder, or hf:OWNER/NAME."
        ),
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[T | SRC | KEY=VALUE]...",
            help="With --text: more texts. With --input: more rows, and settings such as finetune.text_field=body.",
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="T",
            help="A text (repeat for several texts). For tags it is split into words at white space.",
        ),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SRC",
            help="Rows with texts or tokens, as for acorn finetune; in a .txt each line is a text.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="last|best|STEP", help="The checkpoint of a run to use; by default the final model."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto (fp32 on a CPU), fp32, bf16, fp16 or int8 (weights in 8 bits).")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict labels, values or tags of texts with a finetuned model.

    Prints one line for each text: the label, its probability and the beginning of the text; or each word with its tag.
    """
    sources, overrides = _sources(text, input, more or [])
    check_stdout()
    from acorn.checkpoint.load import load
    from acorn.model.int8 import round_to_int8
    from acorn.report.terminal import TaskProgress
    from acorn.runtime.choose import runtime_for_inference
    from acorn.text.inputs import Input, Inputs

    runtime = runtime_for_inference(device, precision)
    progress = TaskProgress()
    loaded = load(run, checkpoint, runtime.device, progress=progress)
    loaded.require_label_head()
    if precision == "int8":
        round_to_int8(loaded.model)
    config = _config(loaded, overrides)
    inputs: Inputs | list[Input]
    if sources:
        inputs = Inputs(sources, config, progress)
        count = inputs.count
    else:
        inputs = [Input(one, f"text {number}") for number, one in enumerate([*(text or []), *(more or [])], start=1)]
        count = len(inputs)
    if config.finetune.overlong != "cut":
        _check_lengths(loaded, inputs)
    cut, with_places = 0, bool(sources) and config.data.errors == "skip"
    with runtime.start():
        for number, (one, found) in enumerate(_predictions(loaded, inputs, count, runtime, progress)):
            cut += found.cut
            if as_json:  # piece by piece, so that memory does not grow with the input
                record = {**found.record, **({"where": one.where} if with_places else {})}
                print(", " if number else '{"results": [', json_text(record), sep="", end="")
            else:
                print(_line(found, loaded.labels))
    if as_json:
        print("]}")
    progress.close()
    if cut:
        progress.note(
            f"{cut:,} of {counted(count, 'text')} longer than the context of {loaded.config.block_size:,} tokens, "
            "of which only the beginning was read (finetune.overlong = cut)."
        )


def _sources(text: list[str] | None, input: list[str] | None, more: list[str]) -> tuple[list[str], list[str]]:
    """The sources of rows, none where texts are given, and the settings for reading them.

    Raises:
        UsageError: there are neither texts nor sources, or both; a text is empty; or a setting stands among texts.
    """
    if bool(text) == bool(input):
        told = "Both texts and rows are named." if text else "No text is named."
        raise UsageError(
            told, where="--text, --input", fix='give texts with --text "..." or name rows with --input SRC'
        )
    if text:
        if blank := [number for number, one in enumerate([*text, *more], start=1) if not one or one.isspace()]:
            raise UsageError("A text is empty.", where=f"--text, text {blank[0]}", fix="give a text with words")
        if settings := known_settings(more):
            raise UsageError(
                "These settings cannot be used here:\n"
                + "\n".join(f"  - {one.partition('=')[0]} has no effect on texts" for one in settings),
                where="--text",
                fix="leave them out; settings belong to rows (--input SRC). For a text in this form, repeat --text",
            )
        return [], []
    sources, overrides = split_settings(more)
    return [*(input or []), *sources], overrides


def _config(loaded: LoadedModel, overrides: list[str]) -> Config:
    """How rows are read and what is done about long texts: as in the model's run, with the user's settings.

    Raises:
        UsageError: a setting has no effect here, or an invalid value.
    """
    from acorn.config_files import PREDICT
    from acorn.data.examples import resolved_overlong
    from acorn.run.example_evaluation import origin_of, with_row_settings

    config = with_row_settings(origin_of(loaded).config, overrides, PREDICT)
    overlong = resolved_overlong(cast("Task", loaded.task), config.finetune.overlong)
    # `drop` would leave texts without an answer.
    changed = {"task": loaded.task, "overlong": "cut" if overlong == "cut" else "refuse"}
    return config.model_copy(update={"finetune": config.finetune.model_copy(update=changed)})


def _check_lengths(loaded: LoadedModel, inputs: Iterable[Input]) -> None:
    """Refuses texts that are longer than the context, before any is predicted on.

    Raises:
        InputError: there is one, or a sentence whose words cannot be encoded.
    """
    from acorn.evaluate.predict import check_fits
    from acorn.evaluate.predict_tags import encoded_sentences

    for some in _batches(inputs):
        texts, places = [one.text for one in some], [one.where for one in some]
        if loaded.task == "tag":
            encoded_sentences(loaded.word_text, [one.split() for one in texts], places, loaded.config.block_size)
        else:
            check_fits(loaded.label_text, texts, places, loaded.config.block_size)


def _predictions(
    loaded: LoadedModel, inputs: Iterable[Input], total: int, runtime: Runtime, progress: Progress
) -> Iterator[tuple[Input, Prediction]]:
    """Each text with its prediction, in order. On a terminal the printed lines are the progress."""
    from acorn.evaluate.predict import TEXTS_AT_ONCE

    is_watched = total > TEXTS_AT_ONCE and not sys.stdout.isatty()
    done = 0
    for some in _batches(inputs):
        yield from zip(some, _predicted(loaded, some, runtime), strict=True)
        done += len(some)
        if is_watched:
            progress.at(TASK, done, total, "texts")
    if is_watched:
        progress.end(TASK)


def _predicted(loaded: LoadedModel, some: Sequence[Input], runtime: Runtime) -> list[Prediction]:
    """What the model says of a few texts."""
    from acorn.evaluate.predict import predict as labels_of
    from acorn.evaluate.predict_tags import predict_tags

    texts, places = [one.text for one in some], [one.where for one in some]
    if loaded.task == "tag":
        sentences = [one.split() for one in texts]
        return predict_tags(loaded.model, loaded.word_text, loaded.labels, sentences, places, runtime)
    return labels_of(loaded.model, loaded.label_text, loaded.labels, texts, runtime)


def _batches(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    from acorn.evaluate.predict import TEXTS_AT_ONCE

    left = iter(inputs)
    while some := list(itertools.islice(left, TEXTS_AT_ONCE)):
        yield some


def _line(found: Prediction, labels: Sequence[str]) -> str:
    """A prediction for people: the label, its probability, and the beginning of the text; or all words with their tags,
    as `word/tag`."""
    from acorn.report.formats import printable

    if found.tokens is not None and found.tags is not None:
        return printable(" ".join(f"{word}/{tag}" for word, tag in zip(found.tokens, found.tags, strict=True)))
    text = printable(" ".join(found.text.split()))
    shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
    if found.value is not None:
        return f"{readable(found.value):>12}  {shown}"
    assert isinstance(found.probabilities, dict)
    if isinstance(found.label, list):
        named = [f"{printable(label)} {100 * found.probabilities[label]:.1f} %" for label in found.label]
        return f"{', '.join(named) or '(none)'}  {shown}"
    label = str(found.label)
    width = min(max(map(len, labels)), WIDEST_LABEL)
    return f"{printable(label):<{width}}  {100 * found.probabilities[label]:5.1f} %  {shown}"
