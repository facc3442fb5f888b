"""`acorn tokenizer`: train or inspect a tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from acorn.cli.arguments import path_from
from acorn.cli.evaluation_facts import rate
from acorn.cli.output import print_facts, print_json
from acorn.cli.text_arguments import METAVAR, text_config, tokenizer_file
from acorn.cli.usage import Program, Verbs
from acorn.errors import UsageError
from acorn.figure_names import CONDITIONS, in_a_sentence
from acorn.run_folder import CONFIG, MANIFEST, MODEL_CONFIG, TOKENIZER

app = Program(cls=Verbs, help="Train or inspect a tokenizer.", no_args_is_help=True)

MEASURED_DOCUMENTS = 2000
"""The number of held-out documents that a new tokenizer is measured on."""

NAMES = {
    "tokenizer": "file",
    "kind": "kind",
    "vocab_size": "vocabulary size",
    "separator": "document separator",
    "lossless": "lossless",
    "bytes_per_token": "bytes per token",
    "unknown_rate": in_a_sentence(CONDITIONS["unknown_rate"]),
    "round_trip_rate": in_a_sentence(CONDITIONS["round_trip_rate"]),
    "dropped_letter_rate": "letters and marks dropped",
    "fingerprint": "SHA-256",
}
"""Facts of a tokenizer -> what the terminal calls them."""


@app.command()
def train(
    input: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SRC", help="Text: files, globs, folders, hf:..., bundled:..."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=METAVAR,
            help="Text, as with --input, and settings of data and tokenizer, such as data.text_field=body.",
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="bpe (default) or wordpiece.")] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Number of vocabulary entries, including special tokens (default 8192).")
    ] = None,
    clean: Annotated[str | None, typer.Option(help="Cleaning of the text: none (default) or wikitext.")] = None,
    out: Annotated[Path, typer.Option(parser=path_from("--out"), help="The file to write.")] = Path("tokenizer.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a tokenizer, and measure it on held-out text."""
    from acorn.report.terminal import TaskProgress
    from acorn.text.splits import TextSplits
    from acorn.tokenizer.measuring import mangling_warning, measure
    from acorn.tokenizer.target import check_target
    from acorn.tokenizer.training import train as train_tokenizer

    options = {"data.clean": clean, "tokenizer.kind": kind, "tokenizer.vocab_size": vocab_size}
    config = text_config("acorn tokenizer train", input or [], more or [], options)
    check_target(out, "--out")
    _check_is_not_of_a_model(out)
    progress = TaskProgress()
    try:
        texts = TextSplits.open(config.data, progress)
        tokenizer = train_tokenizer(
            lambda: texts.documents("train"),
            config.tokenizer.kind,
            config.tokenizer.vocab_size,
            entries=texts.entries(config.tokenizer.kind),
            progress=progress,
        )
        tokenizer.save(out)
        report = measure(tokenizer, islice(texts.documents("valid"), MEASURED_DOCUMENTS))
        if warning := mangling_warning(report):
            progress.note(f"warning: {warning}")
    finally:
        progress.close()
    facts = {
        "tokenizer": str(out),
        "kind": tokenizer.kind,
        **dataclasses.asdict(report),
        "fingerprint": tokenizer.fingerprint,
    }
    del facts["samples"]
    print_json(facts) if as_json else print_facts(_named(facts))


def _check_is_not_of_a_model(out: Path) -> None:
    """Refuses to replace the tokenizer of a run, checkpoint or model, whose checksums would then be wrong.

    Raises:
        UsageError: the target's folder is one of these.
    """
    names = (CONFIG, MODEL_CONFIG, MANIFEST)
    if out.name == TOKENIZER and out.exists() and any((out.parent / name).is_file() for name in names):
        raise UsageError(
            f"{out} is the tokenizer of a run or model; acorn does not replace it.",
            where="--out",
            fix="name another file with --out",
        )


@app.command()
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="TOKENIZER",
            parser=path_from("TOKENIZER"),
            help="A tokenizer.json, or a run or model folder with one.",
        ),
    ],
    text: Annotated[str | None, typer.Option(help="Text to encode.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show a tokenizer, or how it splits a text."""
    from acorn.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file(path), as_it_is=True)
    facts: dict[str, object] = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "separator": tokenizer.separator,
        "lossless": tokenizer.lossless,
        "fingerprint": tokenizer.fingerprint,
    }
    if text is None:
        print_json(facts) if as_json else print_facts(_named(facts))
        return
    (ids,) = tokenizer.encode_documents([text])
    decoded = tokenizer.decode(ids, skip_special_tokens=False)
    pieces = [tokenizer.piece(token_id) for token_id in ids]
    if as_json:
        print_json(
            {**facts, "text": text, "pieces": pieces, "ids": ids, "decoded": decoded, "round_trip": decoded == text}
        )
        return
    print_facts(_named(facts))
    print("\n" + "\n".join(f"{token_id:>7}  {piece!r}" for token_id, piece in zip(ids, pieces, strict=True)))
    if marks := _marks_in(pieces):
        print(f"\n{marks}")
    print(f"\ndecoded     {decoded!r}\nround trip  {'exact' if decoded == text else 'not exact'}")


MARKS = {"Ġ": "Ġ is a space", "Ċ": "Ċ is a line end", "##": "## continues a word", "▁": "▁ is a space"}
"""What vocabularies write in pieces -> what it means."""


def _marks_in(pieces: Sequence[str | None]) -> str:
    """What the marks in `pieces` mean; empty: there are none."""
    text = "".join(piece or "" for piece in pieces)
    return "; ".join(meaning for mark, meaning in MARKS.items() if mark in text)


def _named(facts: Mapping[str, object]) -> dict[str, object]:
    """Facts under the names that a person reads, rates in per cent."""
    return {
        NAMES[key]: rate(value) if key.endswith("_rate") and isinstance(value, float) else value
        for key, value in facts.items()
    }
