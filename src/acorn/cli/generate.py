"""`acorn generate`: generates text with a trained model."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.advice import acorn_command
from acorn.cli.arguments import path_from
from acorn.cli.output import check_stdout, print_json
from acorn.cli.sampling_options import (
    AllowUnknown,
    Checkpoint,
    Decoder,
    Device,
    Greedy,
    IgnoreEos,
    MaxNewTokens,
    MinP,
    Precision,
    RepetitionPenalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
)
from acorn.generate.settings import SamplingSettings

if TYPE_CHECKING:
    from acorn.generate.engine import Generation


def generate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", parser=path_from("RUN"), help="A run, checkpoint or model folder, or hf:OWNER/NAME."
        ),
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="[P]...", help="More prompts.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="P", help="Beginning of the text (repeat for several texts).")
    ] = None,
    max_new_tokens: MaxNewTokens = SamplingSettings.max_new_tokens,
    temperature: Temperature = SamplingSettings.temperature,
    top_k: TopK = SamplingSettings.top_k,
    top_p: TopP = SamplingSettings.top_p,
    min_p: MinP = SamplingSettings.min_p,
    repetition_penalty: RepetitionPenalty = SamplingSettings.repetition_penalty,
    stop: Stop = None,
    seed: Seed = None,
    greedy: Greedy = False,
    ignore_eos: IgnoreEos = False,
    allow_unknown: AllowUnknown = False,
    checkpoint: Checkpoint = None,
    precision: Precision = "auto",
    device: Device = "auto",
    decoder: Decoder = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a prompt that is longer than the context instead of cutting it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Generate text that continues a prompt."""
    from acorn.checkpoint.load import load
    from acorn.generate.engine import check_decoder
    from acorn.generate.engine import generate as generate_text
    from acorn.model.int8 import round_to_int8
    from acorn.report.terminal import TaskProgress
    from acorn.runtime.choose import runtime_for_inference

    settings = SamplingSettings(
        max_new_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        seed,
        greedy,
        tuple(stop or ()),
        ignore_eos,
        allow_unknown,
    )
    check_stdout()
    prompts = [*(prompt or []), *(more or [])] or [""]
    runtime = runtime_for_inference(device, precision)
    check_decoder(decoder)
    progress = TaskProgress()
    loaded = load(run, checkpoint, runtime.device, progress=progress)
    loaded.require_language_model(
        "it does not generate text", "use it with: " + acorn_command("predict", run, "--text", "A text.")
    )
    if precision == "int8":
        round_to_int8(loaded.model)
    streams = len(prompts) == 1 and not as_json
    written = ""

    def show(_: int, piece: str) -> None:
        nonlocal written
        # The prompt is printed with the first piece, so that stdout stays empty if the prompt is refused.
        sys.stdout.write(piece if written else prompts[0] + piece)
        sys.stdout.flush()
        written += piece

    with runtime.start(), runtime.autocast():
        results = generate_text(
            loaded.model,
            loaded.tokenizer,
            prompts,
            settings,
            end_ids=loaded.end_ids,
            trained_ids=loaded.trained_ids,
            on_text=show if streams else None,
            strict=strict,
            note=progress.note,
            decoder=decoder,
            int8=precision == "int8",
        )
    for note in [] if as_json else _notes_on_empty(results):
        progress.note(note)
    if as_json:
        objects = [dataclasses.asdict(result) for result in results]
        print_json(objects[0] if len(objects) == 1 else {"results": objects})
    elif streams:
        print("" if written else prompts[0])
    else:
        _print_all(results)


def _print_all(results: Sequence[Generation]) -> None:
    """Prints several texts, separated by an empty line. On a terminal, a line on stderr precedes each text, because
    texts may contain empty lines."""
    for number, result in enumerate(results):
        print(end="\n" if number else "", flush=True)
        if sys.stdout.isatty():
            print(f"--- text {number + 1} of {len(results)} ---", file=sys.stderr, flush=True)
        print(f"{result.prompt}{result.completion}", flush=True)


def _notes_on_empty(results: Sequence[Generation]) -> list[str]:
    """Reasons why texts are empty."""
    ended = sum(result.finish_reason == "eos" and len(result.new_ids) == 1 for result in results)
    stopped = sum(result.finish_reason == "stop" and not result.completion for result in results)

    def of(n: int) -> str:
        return f" of {n} of the {len(results)} prompts" if len(results) > 1 else ""

    notes = []
    if ended:
        notes.append(f"The model ended the text{of(ended)} immediately. Try another --seed, a prompt, or --ignore-eos.")
    if stopped:
        notes.append(f"The text{of(stopped)} begins with a --stop string, so it is empty.")
    return notes
