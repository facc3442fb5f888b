"""Sources of text on the command line, and settings that say how to read them, as for `acorn pretrain`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acorn.errors import UsageError
from acorn.run_folder import TOKENIZER

if TYPE_CHECKING:
    from acorn.config import Config

METAVAR = "[SRC | KEY=VALUE]..."


def tokenizer_file(path: Path) -> Path:
    """The tokenizer.json that `path` stands for: the file itself, or the one in a run or model folder."""
    return path / TOKENIZER if path.is_dir() else path


def split_settings(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sources and `key=value` overrides. An argument with `=` is an override, unless a file has that name."""
    overrides = [argument for argument in arguments if "=" in argument and not os.path.lexists(argument)]
    return [argument for argument in arguments if argument not in overrides], overrides


def known_settings(arguments: Sequence[str]) -> list[str]:
    """Those of `arguments` that have the form `key=value` and a setting's own name, where texts are expected."""
    from acorn.setting_names import all_keys  # here, because it loads pydantic

    keys = all_keys()
    return [argument for argument in arguments if "=" in argument and argument.partition("=")[0].strip() in keys]


def text_config(command: str, input: Sequence[str], more: Sequence[str], options: Mapping[str, Any]) -> Config:
    """The config of a command that reads text without a run.

    Args:
        command: one of `config_files.IDLE_KEYS`.
        input: sources, even if their names contain `=`.
        more: sources and overrides.
        options: settings given as command-line options; None: not given.

    Raises:
        UsageError: no text is named, or a setting is given twice, has no effect in this command, or has a wrong value.
    """
    from acorn.config_files import build_config, with_overrides

    sources, overrides = split_settings(more)
    given = {key: value for key, value in options.items() if value is not None}
    if input or sources:
        given["data.source"] = [*input, *sources]
    twice = [key for override in overrides if (key := override.partition("=")[0].strip()) in given]
    if twice:
        raise UsageError(
            f"{', '.join(twice)} is given twice, as an option or source and as a setting.",
            where=command,
            fix="give it once",
        )
    values: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        section, name = key.split(".")
        values.setdefault(section, {})[name] = value
    config = with_overrides(build_config(values, "the command line"), overrides, command)
    if not config.data.source:
        raise UsageError("No text is named.", where="--input", fix="name some: --input my_corpus/*.txt")
    return config
