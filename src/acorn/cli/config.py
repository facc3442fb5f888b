"""`acorn config`: the settings and their meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from acorn.cli.output import print_facts, print_json

if TYPE_CHECKING:
    from acorn.config_reference import Setting


def config(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="A setting, such as optimizer.lr, or a section; default: all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Explain the settings of a run.

    Shows type, default, allowed values and meaning of one setting, or lists a section or all settings.
    """
    from acorn.config_reference import find_settings, settings

    found = settings() if key is None else find_settings(key)
    if as_json:
        print_json({"settings": [_as_json(setting) for setting in found]})
    elif key is None or any(setting.key.startswith(f"{key}.") for setting in found):
        _print_list(found)
    else:
        for number, setting in enumerate(found):
            _print_one(setting, after_another=number > 0)


def _print_list(found: list[Setting]) -> None:
    """One line per setting: key, default, meaning."""
    from acorn.config_reference import shown

    keys = max(len(setting.key) for setting in found)
    values = max(len(shown(setting.default)) for setting in found)
    section = ""
    for setting in found:
        own = setting.key.rpartition(".")[0]
        if own != section and section:
            print()
        section = own
        print(f"{setting.key:<{keys}}  {shown(setting.default):<{values}}  {setting.description}")


def _print_one(setting: Setting, *, after_another: bool) -> None:
    from acorn.config_reference import shown

    print(f"{chr(10) if after_another else ''}{setting.key}\n{setting.description}\n")
    print_facts({"type": setting.type, "default": shown(setting.default), "allowed": setting.allowed or "any"})


def _as_json(setting: Setting) -> dict[str, object]:
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return {
        "key": setting.key,
        "type": setting.type,
        "default": default,
        "allowed": setting.allowed,
        "choices": list(setting.choices),
        "description": setting.description,
    }
