"""`acorn plan`: what a run will take, before anything runs."""

from __future__ import annotations

from typing import Annotated

import typer

from acorn.cli.output import print_facts, print_json


def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset's name or a TOML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Parameters, memory, tokens and time on this machine, from a few seconds of training steps."""
    from acorn.config_files import load_config
    from acorn.train.budget import plan_run

    facts = plan_run(load_config(config, overrides or []))
    print_json(facts) if as_json else print_facts(facts)
