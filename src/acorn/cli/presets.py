"""`acorn presets`, and the list of presets in the help of other commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acorn.advice import acorn_command
from acorn.cli.output import print_json
from acorn.cli.usage import Verb
from acorn.counting import counted


class WithPresets(Verb):
    """A command whose help ends with the list of presets, which is read only when the help is shown."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        from acorn.config_files import preset_names, preset_purpose

        with formatter.section("Presets"):
            formatter.write_dl([(name, preset_purpose(name)) for name in preset_names()])
        formatter.write_paragraph()
        formatter.write_text(
            "`acorn presets NAME` shows the settings of a preset; `acorn config` explains all settings."
        )


def presets(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Show all settings of this preset; default: list the presets."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the presets, or show every setting of one."""
    from acorn.config_files import find_preset, preset_names

    if name is not None:
        _show_one(find_preset(name), as_json)
        return
    found = [_facts(name) for name in preset_names()]
    if as_json:
        print_json({"presets": found})
        return
    width = max(len(facts["name"]) for facts in found)
    for number, facts in enumerate(found):
        print(f"{chr(10) if number else ''}{facts['name']:<{width}}  " + f"\n{'':<{width}}  ".join(_lines(facts)))


def _show_one(name: str, as_json: bool) -> None:
    """A preset's summary, then each setting of its file with its meaning."""
    from acorn.config_files import preset_values
    from acorn.config_reference import find_settings, shown

    values = preset_values(name)
    meanings = {key: find_settings(key)[0].description for key in values}
    if as_json:
        found = [{"key": key, "value": value, "description": meanings[key]} for key, value in values.items()]
        print_json({**_facts(name), "settings": found})
        return
    print("\n".join([name, *_lines(_facts(name))]))
    keys, width = max(map(len, values)), max(len(shown(value)) for value in values.values())
    section = ""
    for key, value in values.items():
        own = key.partition(".")[0]
        print(("\n" if own != section else "") + f"{key:<{keys}}  {shown(value):<{width}}  {meanings[key]}")
        section = own
    print("\nAll other settings have their default values (acorn config).")
    print(f"To change a setting: {acorn_command('pretrain', name)} KEY=VALUE")


def _lines(facts: dict[str, Any]) -> list[str]:
    """Purpose, size and length of a preset."""
    minutes, steps = facts["minutes"], facts["steps"]
    in_steps = f"{steps:,} steps, {steps * facts['tokens_per_step']:,} tokens"
    length = counted(minutes, "minute") if minutes else in_steps
    return [
        facts["purpose"],
        f"{facts['parameters']:,} parameters: {facts['architecture']}, {counted(facts['n_layer'], 'layer')} of width "
        f"{facts['n_embd']}, context {facts['block_size']:,}, {facts['tokenizer']} of {facts['vocab_size']:,}",
        f"{facts['optimizer']}, {facts['tokens_per_step']:,} tokens per step, {length}",
    ]


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
