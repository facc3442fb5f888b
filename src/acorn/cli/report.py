"""`acorn report`: one HTML page about a run, or a comparison of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acorn.cli.arguments import path_from


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=path_from("RUN"), help="A run folder.")],
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN", parser=path_from("--compare"), help="Another run to compare with (repeat for more)."
        ),
    ] = None,
    others: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", parser=path_from("RUN"), help="More runs to compare with."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=path_from("--out"),
            help="The .html file to write; by default RUN/report.html, or RUN/comparison.html for several.",
        ),
    ] = None,
) -> None:
    """Write one HTML page about a run, or a comparison of several.

    The page of one run has its curves, samples, evaluation, data, config and environment.
    """
    from acorn.report.html import write_report

    print(write_report(run, [*(compare or []), *(others or [])], out))
