"""`acorn data`: make and check token shards, and show examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acorn.cli import data_inspect
from acorn.cli.arguments import path_from
from acorn.cli.evaluation_facts import split_name
from acorn.cli.output import print_facts, print_json
from acorn.cli.text_arguments import METAVAR, text_config, tokenizer_file
from acorn.cli.usage import Program, Verbs
from acorn.counting import counted
from acorn.errors import UsageError
from acorn.figure_names import TEXT_COUNTS, in_a_sentence

if TYPE_CHECKING:
    from acorn.data.token_shards import TokenShards

app = Program(cls=Verbs, help="Make token shards from text, check them, or show examples.", no_args_is_help=True)


@app.command()
def prepare(
    tokenizer: Annotated[
        Path, typer.Option(parser=path_from("--tokenizer"), help="A tokenizer.json, or a folder with one.")
    ],
    out: Annotated[Path, typer.Option(parser=path_from("--out"), help="The folder to create.")],
    input: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SRC", help="Text: files, globs, folders, hf:..., bundled:..."),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=METAVAR,
            help="Text, as with --input, and settings of the data section, such as data.text_field=body.",
        ),
    ] = None,
    clean: Annotated[str | None, typer.Option(help="Cleaning of the text: none (default) or wikitext.")] = None,
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="I/N",
            help="Encode only part I of N, for `acorn data merge`. The same command resumes a part.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Encode text into a folder of token shards with a manifest."""
    from acorn.data.part import prepare_part
    from acorn.data.prepare import prepare as prepare_shards
    from acorn.report.terminal import TaskProgress
    from acorn.text.splits import TextSplits
    from acorn.tokenizer.tokenizer import Tokenizer

    config = text_config("acorn data prepare", input or [], more or [], {"data.clean": clean})
    numbers = _part_numbers(part) if part is not None else None
    progress = TaskProgress()
    try:
        texts = TextSplits.open(config.data, progress)
        loaded = Tokenizer.from_file(tokenizer_file(tokenizer))
        if numbers:
            plan = prepare_part(texts, loaded, out, *numbers, progress=progress)
            _print_part(out, plan, as_json)
            return
        shards = prepare_shards(texts, loaded, out, shard_tokens=config.data.shard_tokens, progress=progress)
    finally:
        progress.close()
    _print_shards(out, shards, as_json)


@app.command()
def merge(
    parts: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", parser=path_from("DIR"), help="The folders of all parts, in any order."),
    ],
    out: Annotated[Path, typer.Option(parser=path_from("--out"), help="The folder to create.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Merge all parts of a text into token shards."""
    from acorn.data.merge import merge as merge_parts
    from acorn.report.terminal import TaskProgress

    progress = TaskProgress()
    try:
        shards = merge_parts(parts, out, progress=progress)
    finally:
        progress.close()
    _print_shards(out, shards, as_json)


def _part_numbers(text: str) -> tuple[int, int]:
    """The numbers in `3/8`: part 3 of 8."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"{text!r} does not name a part.", where="--part", fix="write --part 3/8 for part 3 of 8; the first is 1/8"
        )
    return int(match[1]), int(match[2])


def _print_part(out: Path, plan: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(out), "part": plan["part"], "parts": plan["parts"]})
    else:
        print(out)


def _print_shards(out: Path, shards: TokenShards, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(out), **shards.manifest})
        return
    for split in shards.splits:
        count = shards.count(split)
        print(f"\n{split_name(split)}")
        print_facts({in_a_sentence(name): getattr(count, key) for key, name in TEXT_COUNTS.items()})
    print(f"\n{out}")


@app.command()
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", parser=path_from("DIR"), help="A folder of token shards, or of examples.")
    ],
) -> None:
    """Check the checksums and counts of token shards or examples."""
    from acorn.data.example_folder import KIND, ExampleFolder, kind_of_data
    from acorn.data.token_shards import TokenShards

    if kind_of_data(folder) == KIND:
        for side, examples in ExampleFolder.open(folder).sides.items():
            print(f"whole  {side:<6}  {counted(len(examples), 'example')}")
        return
    shards = TokenShards.open(folder, check=True)
    for split in shards.splits:
        print(f"whole  {split:<6}  {shards.count(split).tokens:,} tokens")


app.command()(data_inspect.inspect)
