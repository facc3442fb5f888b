"""`acorn finetune`: make a model for a task out of a model that continues text, or resume such a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.cli.arguments import path_from
from acorn.cli.output import print_facts, print_json
from acorn.counting import counted
from acorn.errors import UsageError
from acorn.figure_names import BASELINES, SHARES, SPLITS, TASK_FIGURES, in_a_sentence

if TYPE_CHECKING:
    from acorn.config import Config
    from acorn.run.lifecycle import RunResult

TASKS = ("auto", "chat", "complete", "classify", "regress", "tag")


def finetune(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [KEY=VALUE]...", help="A run or model folder to start from, then settings of the run."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SRC",
            help="Training rows: .jsonl, .json, .csv, .tsv, .conll, .iob (each also with .gz, .xz or .zst after it), "
            ".parquet or hf:OWNER/NAME.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(parser=path_from("--out"), help="The new run folder.")] = None,
    task: Annotated[str, typer.Option(help=f"{', '.join(TASKS)}; auto: by the columns of the rows.")] = "auto",
    valid: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC", help="Validation rows; by default a share of the training rows."),
    ] = None,
    test: Annotated[list[str] | None, typer.Option(metavar="SRC", help="Test rows; by default none.")] = None,
    lora: Annotated[
        int, typer.Option(metavar="RANK", help="Train adapters of this rank instead of all weights; 0: none.")
    ] = 0,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also train the same network from random weights, to compare with: twice the time. The TF-IDF "
            "baseline needs the extra baselines (scikit-learn) and no option.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Start the run, or resume it where it stopped.")] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Allow this setting to differ from the run's own on resume."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Finetune a model on examples of a task, or resume a run.

    Reads the rows, trains the model, evaluates it beside simple baselines and writes a report.
    """
    base, overrides = split_base(arguments or [])
    if out is None:
        raise UsageError("No folder is named.", where="--out", fix="name a new folder, such as --out runs/spam")
    check_task(task)
    config = _config(base, data or [], valid or [], test or [], task, lora, overrides, resume=resume)
    show_result(_run(config, out, resume, allow_change or [], overrides, baselines), as_json)


def _config(
    base: str | None,
    data: list[str],
    valid: list[str],
    test: list[str],
    task: str,
    lora: int,
    overrides: list[str],
    *,
    resume: bool,
) -> Config | None:
    """The config that the command line describes; None: the run's own."""
    from acorn.run.finetune_config import finetune_config

    if base is not None and data:
        return finetune_config(base, data, valid=valid, test=test, task=task, lora=lora, overrides=overrides)
    if resume and base is None and not data:
        if valid or test or lora or task != "auto":
            raise UsageError(
                "A run that is resumed by its folder alone has its own rows and task.",
                where="--valid, --test, --task, --lora",
                fix="leave them out, or repeat the whole command that started the run",
            )
        return None
    missing = "model" if base is None else "rows"
    raise UsageError(
        f"No {missing} {'is' if base is None else 'are'} named.",
        where="acorn finetune",
        fix="name a model and rows (acorn finetune runs/my --data mails.csv --out runs/spam), or a run to resume: "
        "--resume --out RUN",
    )


def _run(
    config: Config | None,
    out: Path,
    resume: bool,
    allow_change: list[str],
    overrides: list[str],
    baselines: bool,
) -> RunResult:
    """Trains with a progress line on stderr."""
    from acorn.report.terminal import Screen, TaskProgress, TrainingLine

    if baselines:
        from acorn.run.baselines import finetune_with_baseline as train
    else:
        from acorn.run.finetune import finetune as train

    screen = Screen()
    progress, line = TaskProgress(screen), TrainingLine(config.train.steps if config else 0, screen)
    try:
        return train(
            config,
            out,
            resume=resume,
            allow_change=allow_change,
            overrides=overrides,
            command_line=shlex.join(sys.argv),
            watcher=line,
            progress=progress,
        )
    finally:
        line.close()
        progress.close()


def show_result(result: RunResult, as_json: bool) -> None:
    """Prints the figures of the finished run, and its files."""
    if as_json:
        print_json(
            {
                "run": str(result.folder),
                "step": result.step,
                "was_complete": result.was_complete,
                "evaluation": result.evaluation,
            }
        )
        return
    if result.was_complete:
        print("The run was already complete; nothing was changed.", file=sys.stderr)
    for split in sorted(result.evaluation, key=list(SPLITS).index):
        print(f"\n{SPLITS[split].lower()}, {counted(result.evaluation[split].get('examples', 0), 'example')}")
        print_facts(facts_of(result.evaluation[split]))
    print(
        f"\nrun          {result.folder}\nreport       {result.folder / 'report.html'}\n"
        f"predictions  {result.folder / 'predictions.jsonl'}\nmodel        {result.folder / 'final'}"
    )


def facts_of(figures: dict[str, object]) -> dict[str, object]:
    """The figures of a side for a terminal, each with those of the baselines behind it."""
    found = figures.get("baselines")
    baselines = found if isinstance(found, dict) else {}
    facts: dict[str, object] = {}
    for name, label in TASK_FIGURES.items():
        if figures.get(name) is None:
            continue
        others = [
            f"{_in_a_sentence(BASELINES[other])} {_shown(name, baselines[other].get(name))}"
            for other in BASELINES
            if isinstance(baselines.get(other), dict) and baselines[other].get(name) is not None
        ]
        facts[_in_a_sentence(label)] = _shown(name, figures[name]) + (f" ({', '.join(others)})" if others else "")
    return facts


def _in_a_sentence(name: str) -> str:
    """A name without the capital that a row begins with, unless it begins with an abbreviation, such as TF-IDF."""
    return name if name[1:2].isupper() else in_a_sentence(name)


def _shown(name: str, value: object) -> str:
    if name in SHARES and isinstance(value, int | float):
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_task(task: str) -> None:
    """Refuses a task that does not exist.

    Raises:
        UsageError: it does not.
    """
    if task not in TASKS:
        raise UsageError(f"There is no task {task!r}.", where="--task", fix=f"use one of {', '.join(TASKS)}")


def split_base(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The base model, if the first argument is one, and the overrides."""
    if arguments and ("=" not in arguments[0] or Path(arguments[0]).exists()):
        return arguments[0], arguments[1:]
    return None, arguments
