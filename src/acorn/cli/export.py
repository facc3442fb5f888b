"""`acorn export`: a trained model for other runtimes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.cli.output import print_facts, print_json

if TYPE_CHECKING:
    from acorn.export.parity import Parity


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, a checkpoint or a model folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    format: Annotated[
        str, typer.Option(metavar="hf|gguf", help="hf: a Hugging Face model folder; gguf: for llama.cpp.")
    ],
    dtype: Annotated[
        str, typer.Option(metavar="f32|bf16|f16|q8_0", help="Type of the weights; q8_0 in gguf only.")
    ] = "f32",
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="last|best|STEP", help="Which checkpoint of a run; by default the final model."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a model for other runtimes, and check in one that it is still the same model."""
    from acorn.export.export import export as export_model
    from acorn.report.terminal import TaskProgress

    progress = TaskProgress()
    result = export_model(run, out, format, dtype, checkpoint=checkpoint, force=force, progress=progress)
    progress.close()
    if as_json:
        print_json({"folder": str(result.folder), **dataclasses.asdict(result.parity)})
    else:
        print_facts({"folder": str(result.folder), **_table(result.parity)})


def _table(parity: Parity) -> dict[str, str]:
    """The report for a reader: what was compared -> how it came out."""
    rows = {
        "format": f"{parity.format}, {parity.dtype}",
        "runtime": f"{parity.runtime} {parity.runtime_version or parity.runtime_note}",
        "weights": f"read back, off by {parity.weight_difference:.2g} at most",
        "tokens": f"{parity.lines_equal:,} of {parity.lines:,} held-out lines and {parity.strings_equal:,} of "
        f"{parity.strings:,} hard strings equal (by {parity.tokens_by})",
        "lines from": ", ".join(f"{place} ({n:,})" for place, n in parity.lines_from.items()),
    }
    if parity.runtime_version is None:
        return {**rows, "logits": "not checked", "greedy tokens": "not checked"}
    return {
        **rows,
        "logits": f"off by {parity.logit_difference:.2g} at most, {parity.logit_difference_in_deviations:.2g} standard "
        f"deviations; {parity.logit_tolerance_in_deviations} allowed",
        "likeliest token": f"equal at {parity.likeliest_agreement:.2%} of {parity.logit_positions:,} positions, "
        f"KL divergence {parity.kl_divergence:.2g} nats",
        "greedy tokens": f"{parity.greedy_equal} of {parity.greedy_tokens} equal, {parity.greedy_near_ties} near ties"
        f"{'' if parity.greedy_required else ' (not required)'}",
    }
