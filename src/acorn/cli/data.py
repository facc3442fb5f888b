"""`acorn data`: make and check token shards, and show examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acorn.cli import data_inspect
from acorn.cli.arguments import path_from
from acorn.cli.evaluation_facts import split_name
from acorn.cli.output import print_facts, print_json
from acorn.cli.text_arguments import METAVAR, text_config, tokenizer_file
from acorn.cli.usage import Program, Verbs
from acorn.counting import counted
from acorn.figure_names import TEXT_COUNTS, in_a_sentence

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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Encode text into a folder of token shards with a manifest."""
    from acorn.data.prepare import prepare as prepare_shards
    from acorn.report.terminal import TaskProgress
    from acorn.text.splits import TextSplits
    from acorn.tokenizer.tokenizer import Tokenizer

    config = text_config("acorn data prepare", input or [], more or [], {"data.clean": clean})
    progress = TaskProgress()
    try:
        texts = TextSplits.open(config.data, progress)
        loaded = Tokenizer.from_file(tokenizer_file(tokenizer))
        shards = prepare_shards(texts, loaded, out, shard_tokens=config.data.shard_tokens, progress=progress)
    finally:
        progress.close()
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
