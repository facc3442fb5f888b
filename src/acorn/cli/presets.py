"""`acorn presets`, and the presets in other commands' help: the configs that come with acorn."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from acorn.cli.output import print_json


class WithPresets(TyperCommand):
    """A command whose help ends with the presets. They are read only where the help is asked for."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from acorn.config_files import preset_names, preset_purpose

        with formatter.section("Presets"):
            formatter.write_dl([(name, preset_purpose(name)) for name in preset_names()])
        formatter.write_paragraph()
        formatter.write_text("`acorn presets` tells their sizes, `acorn config` every setting.")


def presets(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the presets: what each is for, its size and its length."""
    from acorn.config_files import preset_names

    found = [_facts(name) for name in preset_names()]
    if as_json:
        print_json({"presets": found})
        return
    width = max(len(facts["name"]) for facts in found)
    for number, facts in enumerate(found):
        minutes, steps = facts["minutes"], facts["steps"]
        in_steps = f"{steps:,} steps, {steps * facts['tokens_per_step']:,} tokens"
        length = f"{minutes:g} {'minute' if minutes == 1 else 'minutes'}" if minutes else in_steps
        lines = [
            f"{facts['purpose']}",
            f"{facts['parameters']:,} parameters: {facts['architecture']}, {facts['n_layer']} layers of width "
            f"{facts['n_embd']}, context {facts['block_size']:,}, {facts['tokenizer']} of {facts['vocab_size']:,}",
            f"{facts['optimizer']}, {facts['tokens_per_step']:,} tokens a step, {length}",
        ]
        print(f"{chr(10) if number else ''}{facts['name']:<{width}}  " + f"\n{'':<{width}}  ".join(lines))


def _facts(name: str) -> dict[str, Any]:
    from acorn.config_files import load_config, preset_purpose
    from acorn.model.sizing import size_of

    config = load_config(name)
    model = config.model.model_copy(update={"vocab_size": config.tokenizer.vocab_size})
    return {
        "name": name,
        "purpose": preset_purpose(name),
        "parameters": size_of(model).parameters,
        "architecture": model.architecture,
        "n_layer": model.n_layer,
        "n_embd": model.n_embd,
        "block_size": model.block_size,
        "tokenizer": config.tokenizer.kind,
        "vocab_size": model.vocab_size,
        "optimizer": config.optimizer.name,
        "tokens_per_step": config.train.batch_size * model.block_size,
        "steps": config.train.steps,
        "minutes": config.train.minutes,
        "source": list(config.data.source),
    }
