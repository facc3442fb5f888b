"""`acorn sweep`: a grid of runs over one text, with mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acorn.cli.arguments import path_from
from acorn.cli.output import print_json

if TYPE_CHECKING:
    from acorn.report.sweep_figures import SettingGroup, Verdict
    from acorn.run.sweep import SweepResult


def sweep(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset's name or a TOML file.")],
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="'KEY=[...]'... [KEY=VALUE]...",
            help="Settings: those with a list of values in brackets are varied, all others are the same for every run.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(parser=path_from("--out"), help="The folder of the sweep; it will hold one folder per run.")
    ],
    jobs: Annotated[int, typer.Option(min=1, help="Number of runs at a time.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Start or resume; finished runs are not repeated.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train every combination of the given values and compare them.

    Example: acorn sweep small data.source=my.txt train.steps=500 'optimizer.lr=[0.005,0.01]' 'train.seed=[0,1,2]'
    --out runs/lr

    A list gives several values to try. For a setting that is itself a list (data.source, data.valid_source,
    data.test_source, train.sample_prompts, report.trackers) a list is one value, and a list of lists is several:
    'data.source=[["a.txt"],["a.txt","b.txt"]]'.

    Runs with the same data.*, tokenizer.* and train.init_from share one prepared text. If a run fails, that is reported
    and the others continue; the exit code is then the largest of all runs. Ctrl-C saves the runs in progress, and the
    same command with --resume continues them.
    """
    from acorn.report.sweep_figures import caveats, setting_groups, verdict_of
    from acorn.report.sweep_page import write_sweep_report
    from acorn.report.terminal import TaskProgress
    from acorn.run.grid import build_grid
    from acorn.run.sweep import run_sweep

    progress = TaskProgress()
    try:
        result = run_sweep(build_grid(config, arguments), out, jobs=jobs, resume=resume, progress=progress)
    finally:
        progress.close()
    groups = setting_groups(result.runs)
    verdict = verdict_of(groups)
    report = write_sweep_report(result.folder.report, result.runs)
    if as_json:
        print_json(_as_json(result, groups, verdict, report))
    else:
        _print_table(groups)
        print("\n" + "\n".join([verdict.sentence, *caveats(groups), f"report  {report}"]))
    if error := result.error:
        raise error


def _as_json(result: SweepResult, groups: Sequence[SettingGroup], verdict: Verdict, report: Path) -> dict[str, Any]:
    return {
        "sweep": str(result.folder.root),
        "report": str(report),
        "runs": [
            {
                "name": run.name,
                "run": str(run.folder),
                "settings": dict(run.settings),
                "status": run.status,
                "exit_code": run.exit_code,
                "error": run.error or None,
                "step": run.step,
                "undisturbed": run.undisturbed,
                "why_no_figure": run.why_no_figure or None,
                "evaluation": dict(run.evaluation),
            }
            for run in result.runs
        ],
        "groups": [_group(group) for group in groups],
        "best": _group(verdict.best) if verdict.best else None,
        "next": _group(verdict.next) if verdict.next else None,
        "difference": verdict.difference,
        "margin_95": verdict.margin,
        "is_clear": verdict.is_clear,
        "verdict": verdict.sentence,
    }


def _group(group: SettingGroup) -> dict[str, Any]:
    return {
        "settings": dict(group.settings),
        "runs": len(group.runs),
        "done": sum(run.status == "done" for run in group.runs),
        "bits_per_byte_mean": group.mean if group.values else None,
        "bits_per_byte_deviation": group.deviation,
        "bits_per_byte": list(group.values),
    }


def _print_table(groups: Sequence[SettingGroup]) -> None:
    from acorn.report.sweep_figures import SCORE_HEADS, altered_in, group_rows

    head, rows = group_rows(groups)
    if of_text := altered_in(groups):
        head = [f"{name} ({of_text})" if name in SCORE_HEADS else name for name in head]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
