"""`acorn evaluate`: how well a model predicts a text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from acorn.cli.output import print_facts, print_json


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run, checkpoint or model folder, or hf:OWNER/NAME.")],
    split: Annotated[str, typer.Option(help="valid or test: a split of the run's own text.")] = "valid",
    input: Annotated[
        list[str] | None, typer.Option("--input", metavar="FILE", help="Other text to score instead.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of a window; by default the model's block_size.")] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens between windows; by default the context.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="last|best|STEP", help="Which checkpoint of a run; by default the final model."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16; auto is fp32 on a CPU.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Loss, bits per byte and word perplexity on a split, or on a text of your own."""
    from acorn.checkpoint.load import load
    from acorn.evaluate.run_data import data_config_of, shards_of
    from acorn.evaluate.validation import evaluate_documents, evaluate_split
    from acorn.report.terminal import TaskProgress
    from acorn.runtime.device import runtime_for_inference
    from acorn.text.splits import TextSplits

    runtime = runtime_for_inference(device, precision)
    progress = TaskProgress()
    loaded = load(run, checkpoint, runtime.device, progress=progress)
    with runtime.start():
        if input:
            data = data_config_of(loaded.folder)
            texts = TextSplits.open_held_out(input, data, progress)
            result = evaluate_documents(
                loaded.model,
                loaded.tokenizer,
                texts.documents(texts.names[0]),
                runtime,
                clean=data.clean,
                context=context,
                stride=stride,
                progress=progress,
            )
        else:
            result = evaluate_split(
                loaded.model,
                loaded.tokenizer,
                shards_of(loaded.folder, loaded.tokenizer),
                split,
                runtime,
                context=context,
                stride=stride,
                progress=progress,
            )
    progress.close()
    facts = dataclasses.asdict(result)
    print_json(facts) if as_json else print_facts(facts)
