"""`acorn verify`: checks that a run is as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acorn.cli.arguments import path_from
from acorn.cli.output import print_json
from acorn.errors import DamageError


def verify(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", parser=path_from("RUN"), help="A run, checkpoint or model folder, or an export."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check everything in a run against its checksums.

    Checks the run's own files, checkpoints, final model and data.
    """
    from acorn.checkpoint.integrity import verify_run

    checks = verify_run(run)
    if as_json:
        print_json({"folders": [{"folder": str(c.folder), "kind": c.kind, "faults": list(c.faults)} for c in checks]})
    else:
        for check in checks:
            print(f"{'intact ' if check.whole else 'DAMAGED'}  {check.kind:<10}  {check.folder}")
    faults = [fault for check in checks for fault in check.faults]
    if faults:
        good = [str(check.folder) for check in checks if check.whole and check.kind != "run"]
        raise DamageError(
            "Some files are not as they were written:\n  - " + "\n  - ".join(faults),
            where=str(run),
            fix=f"still good: {', '.join(good)}" if good else "nothing here is intact; restore it from a copy",
        )
