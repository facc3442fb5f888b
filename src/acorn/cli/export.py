"""`acorn export`: writes a trained model for other runtimes."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.cli.arguments import path_from
from acorn.cli.output import print_facts, print_json

if TYPE_CHECKING:
    from acorn.export.parity import Parity


def export(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", parser=path_from("RUN"), help="A run folder, a checkpoint or a model folder."),
    ],
    format: Annotated[
        str,
        typer.Option(
            metavar="hf|gguf|peft",
            help="hf: a Hugging Face model folder; gguf: for llama.cpp; peft: the adapter of a run with LoRA.",
        ),
    ],
    dtype: Annotated[
        str, typer.Option(metavar="f32|bf16|f16|q8_0", help="Data type of the weights; q8_0 for gguf only.")
    ] = "f32",
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="last|best|STEP", help="The checkpoint of a run to use; by default the final model."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=path_from("--out"), help="The folder to write.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Publish on the Hub; --out is then optional."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A repository that --push creates is visible to you only.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a model for other runtimes, and check it in one of them."""
    from acorn.errors import UsageError
    from acorn.export.adapter import export_adapter
    from acorn.export.export import export as export_model
    from acorn.export.publish import check_login, publish
    from acorn.report.terminal import TaskProgress

    if out is None and push is None:
        raise UsageError("No folder to write to is named.", where="--out", fix="name a folder: --out DIR")
    if push is not None:
        if format != "hf":
            raise UsageError("Only a Hugging Face folder can be published.", where="--push", fix="use --format hf")
        check_login(push)
    progress = TaskProgress()
    if format == "peft":
        assert out is not None
        values = export_adapter(run, out, dtype, checkpoint=checkpoint, force=force, progress=progress)
        progress.close()
        if as_json:
            print_json({"folder": str(out), "format": format, "dtype": dtype, "values": values})
        else:
            print_facts({"folder": str(out), "format": f"{format}, {dtype}", "values": f"{values:,}"})
        return
    places: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="acorn-") as temporary:
        folder = out or Path(temporary) / "model"
        result = export_model(run, folder, format, dtype, checkpoint=checkpoint, force=force, progress=progress)
        if out:
            places["folder"] = str(out)
        if push:
            progress.note(f"Uploading to {push}.")
            places["published"] = publish(folder, push, private=private)
    progress.close()
    if as_json:
        print_json({**places, **dataclasses.asdict(result.parity)})
    else:
        print_facts({**places, **_table(result.parity)})


def _table(parity: Parity) -> dict[str, str]:
    """The report as a table for the terminal: comparison -> result."""
    rows = {
        "format": f"{parity.format}, {parity.dtype}",
        "runtime": f"{parity.runtime} {parity.runtime_version or parity.runtime_note}",
        "weights": f"read back, largest difference {parity.weight_difference:.2g}",
        "tokens": f"{parity.lines_equal:,} of {parity.lines:,} held-out lines and {parity.strings_equal:,} of "
        f"{parity.strings:,} hard strings equal (by {parity.tokens_by})",
        "lines from": ", ".join(f"{place} ({n:,})" for place, n in parity.lines_from.items()),
    }
    if parity.runtime_version is not None and parity.greedy_tokens is None:  # a model with a label head
        rows["outputs"] = (
            f"largest difference {parity.logit_difference:.2g}, {parity.logit_difference_in_deviations:.2g} of their "
            f"root mean square; {parity.logit_tolerance_in_deviations} allowed"
        )
        if parity.probability_difference is not None:
            rows["probabilities"] = f"largest difference {parity.probability_difference:.2g}"
        if parity.likeliest_agreement is not None:
            rows["most likely label"] = (
                f"equal at {parity.likeliest_agreement:.2%} of {parity.logit_positions:,} places"
            )
        return rows
    if parity.runtime_version is None:
        return {**rows, "logits": "not checked", "greedy tokens": "not checked"}
    return {
        **rows,
        "logits": f"largest difference {parity.logit_difference:.2g}, {parity.logit_difference_in_deviations:.2g} "
        f"standard deviations; {parity.logit_tolerance_in_deviations} allowed",
        "most likely token": f"equal at {parity.likeliest_agreement:.2%} of {parity.logit_positions:,} positions, "
        f"KL divergence {parity.kl_divergence:.2g} nats",
        "greedy tokens": f"{parity.greedy_equal} of {parity.greedy_tokens} equal, {parity.greedy_near_ties} near ties"
        f"{'' if parity.greedy_required else ' (not required)'}",
    }
