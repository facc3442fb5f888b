"""`acorn demo`: from text to a trained model in a few minutes, on the bundled WikiText-2."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acorn.advice import acorn_command, resume_command
from acorn.cli.arguments import path_from
from acorn.counting import counted
from acorn.errors import DamageError, UsageError

if TYPE_CHECKING:
    from acorn.config import Config

PROMPTS = ("The history of", "In 1998 ,", "= Music =")

MODEL = "runs/labels"
"""Folder of the finetuned model in the command that is suggested next."""


def demo(
    out: Annotated[Path, typer.Option(parser=path_from("--out"), help="The run folder.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(min=0.05, help="Minutes of training.")] = 3.0,
) -> None:
    """Train a small model on the bundled WikiText-2 and let it write."""
    from acorn.cli.pretrain import run_pretrain, show_result
    from acorn.config_files import load_config
    from acorn.report.metrics_log import read_metrics
    from acorn.report.sparkline import sparkline
    from acorn.run_folder import RunFolder

    config = load_config("demo", [f"train.minutes={minutes}"])
    _check_is_demo(out, config)
    print(
        f"Demo: trains a tokenizer on WikiText-2, trains a small model for {counted(minutes, 'minute')}, evaluates it "
        f"on held-out text, and generates text. Ctrl-C is safe at any time: the same command resumes {out}.",
        file=sys.stderr,
    )
    # A demo that was interrupted, or is started again, is resumed instead of refused.
    result = run_pretrain(config, out, resume=True)
    _write_texts(result.folder)
    records = read_metrics(RunFolder(result.folder).metrics)
    losses = [record["loss"] for record in records if record["split"] == "train"]
    if losses:
        print(f"\ntraining loss  {losses[0]:.2f} {sparkline(losses, 60)} {losses[-1]:.2f}  (nats per token)")
    show_result(result, as_json=False)
    print(f"next     {acorn_command('finetune', result.folder, '--data', 'my.csv', '--out', MODEL)}")
    print("         my.csv: texts of yours in a column text, and what they are in a column label")


def _check_is_demo(out: Path, config: Config) -> None:
    """Refuses a folder that holds another run than a demo. What is no run is left to the start of the run.

    Raises:
        UsageError: it holds one.
    """
    from acorn.config_files import load_run_config
    from acorn.run.resume import merge_configs
    from acorn.run_folder import RunFolder

    own = RunFolder(out).config
    with contextlib.suppress(DamageError):
        stored = load_run_config(own)
        try:
            merge_configs(stored, config)
        except UsageError:
            raise UsageError(
                f"{out} holds another run, not a demo.",
                where="--out",
                fix=f"name another folder with --out; to resume that run: {resume_command(out)}",
            ) from None


def _write_texts(folder: Path) -> None:
    """Prints a few texts from the finished model; equal weights give equal texts."""
    from acorn.checkpoint.load import load
    from acorn.generate.engine import generate
    from acorn.generate.settings import SamplingSettings

    loaded = load(folder)
    settings = SamplingSettings(max_new_tokens=80, temperature=0.8, top_k=50, seed=1, ignore_eos=True)
    for result in generate(loaded.model, loaded.tokenizer, list(PROMPTS), settings):
        print(f"\n> {result.prompt}\n{result.text}")
    sys.stdout.flush()
