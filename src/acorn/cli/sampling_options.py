"""The options of commands that generate text: how tokens are sampled, with which weights, and on what device."""

from __future__ import annotations

from typing import Annotated

import typer

MaxNewTokens = Annotated[int, typer.Option(help="Largest number of new tokens.")]
Temperature = Annotated[float, typer.Option(help="Below 1: more predictable; above 1: more random; 0: greedy.")]
TopK = Annotated[int, typer.Option(help="Use only the K most likely tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Use only the most likely tokens whose probabilities sum to P; 1: all.")]
MinP = Annotated[float, typer.Option(help="Use only tokens with this share of the highest probability; 0: all.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1: repeat less.")]
Stop = Annotated[list[str] | None, typer.Option(metavar="S", help="End before this string (repeat for several).")]
Seed = Annotated[int | None, typer.Option(help="Equal seeds give equal text.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Always choose the most likely token.")]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Continue after the end of a document.")]
AllowUnknown = Annotated[
    bool, typer.Option("--allow-unknown", help="Allow [UNK], which is not shown as text (WordPiece).")
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="last|best|STEP", help="The checkpoint of a run to use; by default the final model."),
]
Precision = Annotated[
    str, typer.Option(help="auto (fp32 on a CPU), fp32, bf16, fp16, or int8 (weights in 8 bits; the fastest).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Decoder = Annotated[
    str, typer.Option(help="auto, torch, or native (C compiled for this CPU; auto uses it if available).")
]
