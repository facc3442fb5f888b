"""`acorn pretrain`: train a model on text, or resume a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.advice import acorn_command
from acorn.cli.arguments import path_from
from acorn.cli.evaluation_facts import evaluation_facts, split_name
from acorn.cli.output import print_facts, print_json
from acorn.errors import UsageError
from acorn.figure_names import SPLITS

if TYPE_CHECKING:
    from acorn.run.lifecycle import RunResult

SHOWN = ("bits_per_byte", "loss_per_token", "word_perplexity", "tokens", "context", "stride", "precision")
"""Figures of each split that are printed at the end of a run."""


def pretrain(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...", help="A preset's name or a TOML file, then settings that override it."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=path_from("--out"), help="The run folder; by default runs/<config name>.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Start the run, or resume it where it stopped.")] = False,
    allow_change: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Allow this setting to differ from the run's own on resume."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Train a model on text, or resume a run.

    Prepares the text, trains a tokenizer and the model, evaluates the model and writes a report.
    """
    from acorn.config_files import load_config

    source, overrides = _split(arguments or [])
    if source is None and not (resume and out):
        raise UsageError(
            "No config is given.",
            where="acorn pretrain",
            fix="name a preset or a TOML file (acorn pretrain small ...), or a run to resume: --resume --out RUN",
        )
    config = None if source is None else load_config(source, overrides)
    folder = out or Path("runs") / (config.name if config else "")
    result = run_pretrain(config, folder, resume=resume, allow_change=allow_change or [], overrides=overrides)
    show_result(result, as_json)


def run_pretrain(
    config: object,
    folder: Path,
    *,
    resume: bool,
    allow_change: list[str] | None = None,
    overrides: list[str] | None = None,
) -> RunResult:
    """Trains with a progress line on stderr."""
    from acorn.config import Config
    from acorn.report.terminal import Screen, TaskProgress, TrainingLine
    from acorn.run.pretrain import pretrain as train

    assert config is None or isinstance(config, Config)
    screen = Screen()
    progress, line = TaskProgress(screen), TrainingLine(config.train.steps if config else 0, screen)
    try:
        return train(
            config,
            folder,
            resume=resume,
            allow_change=allow_change or [],
            overrides=overrides or [],
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
    from acorn.report.comparability import scored_text
    from acorn.report.run_facts import read_run

    altered = scored_text(read_run(result.folder)) if result.evaluation else ""
    for split in sorted(result.evaluation, key=list(SPLITS).index):  # JSON has them sorted by name
        figures = result.evaluation[split]
        print(f"\n{split_name(split)}")
        print_facts(evaluation_facts({name: figures.get(name) for name in SHOWN}, altered))
        if figures.get("bits_per_byte") is None and figures.get("bits_per_byte_note"):
            print(f"bits per byte: {figures['bits_per_byte_note']}")
    print(
        f"\nrun      {result.folder}\nreport   {result.folder / 'report.html'}\ncurve    {result.folder / 'loss.png'}"
    )
    print(f'try it   {acorn_command("generate", result.folder)} --prompt "..."')


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The config's name, if the first argument is one, and the overrides."""
    if arguments and ("=" not in arguments[0] or Path(arguments[0]).exists()):
        return arguments[0], arguments[1:]
    return None, arguments
