"""`acorn plan`: what a run will need, and what would prevent it, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acorn.cli.arguments import path_from
from acorn.cli.finetune import check_task
from acorn.cli.output import print_facts, print_json
from acorn.counting import counted
from acorn.errors import UsageError
from acorn.figure_names import SPLITS, in_a_sentence

if TYPE_CHECKING:
    from acorn.progress import Progress

UNITS = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
SMALLEST_COUNT = 2.0  # a unit is used from two of it on: 36 hours, 2 days

MOST_PASSES = 20
MANY_PASSES = (
    f"the run passes over the text more than {MOST_PASSES} times: expect overfitting; use more text or fewer steps"
)

NOT_KNOWN = {
    "none": "none given; acorn pretrain needs data.source",
    "hub": "on the Hub; acorn plan does not download it, so its size is unknown",
    "part": "only partly read; its size is unknown",
}


def plan(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A preset's name or a TOML file; with --data the model to finetune.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the config.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC", help="Rows to finetune on: plan the run of acorn finetune with these arguments."),
    ] = None,
    task: Annotated[str, typer.Option(help="As in acorn finetune.")] = "auto",
    valid: Annotated[list[str] | None, typer.Option(metavar="SRC", help="As in acorn finetune.")] = None,
    test: Annotated[list[str] | None, typer.Option(metavar="SRC", help="As in acorn finetune.")] = None,
    lora: Annotated[int, typer.Option(metavar="RANK", help="As in acorn finetune.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(parser=path_from("--out"), help="The run's folder; plan checks the free space on its disk."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: bytes, minutes, counts.")] = False,
) -> None:
    """Estimate size, memory and time of a run before it starts.

    Prints parameters, memory, tokens, epochs and time on this machine. It reads the first part of the text (all of a
    small text) and times some training steps, which takes between a few seconds and a minute; the result varies with
    the load of the machine. What acorn pretrain would refuse is refused here too. Nothing is written, and nothing is
    downloaded from the Hub.

    With --data it plans a finetuning run: put plan in place of finetune. All rows are then read, and named models and
    rows of the Hub are downloaded.
    """
    from acorn.report.terminal import TaskProgress

    if not data and (task != "auto" or valid or test or lora):
        raise UsageError(
            "These options belong to finetuning, and no rows are named.",
            where="--task, --valid, --test, --lora",
            fix="name the rows with --data",
        )
    progress = TaskProgress()
    try:
        if data:
            facts = _finetuning(config, data, valid or [], test or [], task, lora, overrides or [], out, progress)
        else:
            facts = _pretraining(config, overrides or [], out, progress)
    finally:
        progress.close()
    if as_json:
        print_json(facts)
    else:
        print_facts(readable_finetuning(facts) if data else readable(facts))


def _pretraining(source: str, overrides: list[str], out: Path | None, progress: Progress) -> dict[str, Any]:
    from acorn.config_files import load_config
    from acorn.run.plan import plan_run

    return plan_run(load_config(source, overrides), out, progress)


def _finetuning(
    base: str,
    data: list[str],
    valid: list[str],
    test: list[str],
    task: str,
    lora: int,
    overrides: list[str],
    out: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    from acorn.run.finetune_config import finetune_config
    from acorn.run.finetune_plan import plan_finetuning

    check_task(task)
    config = finetune_config(base, data, valid=valid, test=test, task=task, lora=lora, overrides=overrides)
    return plan_finetuning(config, out or Path("runs") / config.name, progress)


def readable_finetuning(facts: dict[str, Any]) -> dict[str, str | None]:
    """The facts of a finetuning plan as a person reads them."""
    from acorn.report.formats import amount, rate

    free, parameters, trained = (facts[key] for key in ("memory_available_bytes", "parameters", "trained_parameters"))
    sides = [f"{count:,} {in_a_sentence(SPLITS[name])}" for name, count in facts["examples"].items()]
    return {
        "name": facts["name"],
        "task": facts["task"],
        "network": f"{facts['architecture']}, {parameters:,} parameters"
        + (f", {trained:,} of them trained" if trained < parameters else ""),
        "runs on": _machine(facts),
        "memory": _memory(facts["memory_bytes"], free),
        "examples": ", ".join(sides),
        "tokens": f"{facts['train_tokens']:,} in an epoch, {facts['counted_tokens']:,} of them counted in the loss; "
        f"the longest example has {facts['longest_example']:,}",
        "one step": f"{counted(facts['batch_size'], 'example')}, {facts['micro_batch_size']} of the longest at a time",
        "one epoch": counted(round(facts["steps_per_epoch"], 1), "step"),
        "the run": f"{counted(facts['steps'], 'step')}{_epochs(facts['epochs'])}",
        "speed": f"{rate(facts['tokens_per_second'], 'tokens')}, measured now; varies with the load of this machine",
        "time": f"{rough_duration(60 * facts['minutes'])} of training steps",
        "one checkpoint": amount(facts["checkpoint_bytes"], "bytes"),
    }


def readable(facts: dict[str, Any]) -> dict[str, str | None]:
    """The facts of a plan as a person reads them."""
    from acorn.report.formats import amount, rate, short

    free = facts["memory_available_bytes"]
    seconds = 60 * facts["minutes"]
    return {
        "name": facts["name"],
        "network": f"{facts['architecture']}, {facts['parameters']:,} parameters, {facts['vocab_size']:,} vocabulary "
        "entries",
        "runs on": _machine(facts),
        "memory": _memory(facts["memory_bytes"], free),
        "training text": _text(facts),
        "one step": f"{facts['tokens_per_step']:,} tokens, {counted(facts['micro_batch_size'], 'sequence')} at a time",
        "the run": f"{counted(facts['steps'], 'step')}, {short(facts['tokens'])} tokens{_epochs(facts['epochs'])}",
        "warning": MANY_PASSES if (facts["epochs"] or 0) > MOST_PASSES else None,
        "speed": f"{rate(facts['tokens_per_second'], 'tokens')}, measured now; varies with the load of this machine",
        "time": f"{rough_duration(seconds)} of training steps",
        "one checkpoint": amount(facts["checkpoint_bytes"], "bytes"),
    }


def _machine(facts: dict[str, Any]) -> str:
    return (
        f"{facts['device']}, {facts['precision']}, compile {'on' if facts['compile'] else 'off'}, "
        f"{facts['threads']} CPU threads"
    )


def _memory(needed: int, free: int | None) -> str:
    from acorn.report.formats import amount

    return amount(needed, "bytes") + (f" of {amount(free, 'bytes')} available" if free is not None else "")


def rough_duration(seconds: float) -> str:
    """An estimate with one unit and two or three digits: `45 seconds`, `3.5 hours`, `106 days`."""
    name, length = next((unit for unit in UNITS if seconds >= SMALLEST_COUNT * unit[1]), UNITS[-1])
    value = seconds / length
    return counted(round(value, 1) if value < 10 else round(value), name)


def _text(facts: dict[str, Any]) -> str:
    from acorn.report.formats import amount, short

    tokens, n_bytes = facts["train_tokens"], facts["train_bytes"]
    if tokens is None:
        return NOT_KNOWN[facts["text"]]
    if facts["text"] == "whole":
        return f"{tokens:,} tokens from {amount(n_bytes, 'bytes')}"
    return f"about {short(tokens)} tokens from {amount(n_bytes, 'bytes')} (estimated from its first part)"


def _epochs(epochs: float | None) -> str:
    if epochs is None:
        return ""
    return f", {counted(float(f'{epochs:.3g}') if epochs < 1000 else round(epochs), 'epoch')}"
