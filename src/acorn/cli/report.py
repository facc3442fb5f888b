"""`acorn report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Other runs, laid over the curves (repeat).")
    ] = None,
    others: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="More runs to compare with.")] = None,
) -> None:
    """Write RUN/report.html: curves, samples, figures, config, data, environment."""
    from acorn.report.html import write_report

    print(write_report(run, [*(compare or []), *(others or [])]))
