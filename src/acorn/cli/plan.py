"""`acorn plan`: what a run will take, and what would keep it from starting, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from acorn.cli.output import print_facts, print_json
from acorn.counting import counted

UNITS = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
FROM_TWO = 2.0  # of a unit on, it is used: 36 hours, 2 days

MOST_PASSES = 100
MANY_PASSES = f"more than {MOST_PASSES} passes: expect overfitting; more text or fewer steps avoid it"

NOT_KNOWN = {
    "none": "none is named; acorn pretrain asks for data.source",
    "hub": "on the Hub, and not fetched by acorn plan: its size is not known here",
    "part": "read in part; its size is not known",
}


def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset's name or a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder that the run will have: its disk must hold the run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: bytes, minutes, counts.")] = False,
) -> None:
    """Estimate size, memory and time of a run before it starts.

    Parameters, memory, tokens, passes over the text and time on this machine. The first part of the text is read as
    acorn pretrain reads it (all of it where it is small), and training steps are timed, which takes from a few seconds
    to a minute and varies with the machine's load. What acorn pretrain would refuse is refused. Nothing is written,
    and data sets on the Hub are not fetched.
    """
    from acorn.config_files import load_config
    from acorn.report.terminal import TaskProgress
    from acorn.run.plan import plan_run

    progress = TaskProgress()
    try:
        facts = plan_run(load_config(config, overrides or []), out, progress)
    finally:
        progress.close()
    print_json(facts) if as_json else print_facts(readable(facts))


def readable(facts: dict[str, Any]) -> dict[str, str | None]:
    """The facts of a plan as a person reads them."""
    from acorn.report.formats import amount, rate, short

    free = facts["memory_available_bytes"]
    seconds = 60 * facts["minutes"]
    return {
        "name": facts["name"],
        "network": f"{facts['architecture']}, {facts['parameters']:,} parameters, {facts['vocab_size']:,} vocabulary "
        "entries",
        "computes with": f"{facts['device']}, {facts['precision']}, compile {'on' if facts['compile'] else 'off'}, "
        f"{facts['threads']} CPU threads",
        "memory": amount(facts["memory_bytes"], "bytes")
        + (f" of {amount(free, 'bytes')} available" if free is not None else ""),
        "training text": _text(facts),
        "a step": f"{facts['tokens_per_step']:,} tokens, {facts['micro_batch_size']} sequences at a time",
        "the run": f"{facts['steps']:,} steps, {short(facts['tokens'])} tokens{_epochs(facts['epochs'])}",
        "remark": MANY_PASSES if (facts["epochs"] or 0) > MOST_PASSES else None,
        "speed": f"{rate(facts['tokens_per_second'], 'tokens')}, measured now; it varies with the machine's load",
        "time": f"{rough_duration(seconds)} of training steps",
        "a checkpoint": amount(facts["checkpoint_bytes"], "bytes"),
    }


def rough_duration(seconds: float) -> str:
    """One unit and two or three digits, as an estimate deserves: `45 seconds`, `3.5 hours`, `106 days`."""
    name, length = next((unit for unit in UNITS if seconds >= FROM_TWO * unit[1]), UNITS[-1])
    value = seconds / length
    return counted(round(value, 1) if value < 10 else round(value), name)


def _text(facts: dict[str, Any]) -> str:
    from acorn.report.formats import amount, short

    tokens, n_bytes = facts["train_tokens"], facts["train_bytes"]
    if tokens is None:
        return NOT_KNOWN[facts["text"]]
    if facts["text"] == "whole":
        return f"{tokens:,} tokens from {amount(n_bytes, 'bytes')}"
    return f"about {short(tokens)} tokens from {amount(n_bytes, 'bytes')} (its first part was read)"


def _epochs(epochs: float | None) -> str:
    if epochs is None:
        return ""
    return f", {counted(float(f'{epochs:.3g}') if epochs < 1000 else round(epochs), 'pass', 'passes')} over the text"
