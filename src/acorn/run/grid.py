"""The runs of a sweep: every combination of the values on its command line, each with a config and a name."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acorn.config import Config
from acorn.config_files import FORMER_PRESETS, flatten, load_config, override_of, preset_names, read_override
from acorn.errors import UsageError
from acorn.report.sweep_figures import short_keys, shown

MAX_NAME_BYTES = 120
"""Of a run's name. Most file systems allow 255, but messages show the name together with files in the folder."""

LIST_SYNTAX = (
    "give the values of a setting as a list, quoted for the shell: 'optimizer.lr=[0.005,0.01]'; for a setting that is "
    """itself a list, give a list of lists: 'data.source=[["a.txt"],["b.txt","c.txt"]]'"""
)
"""How several values of a setting are given: the advice of messages."""


@dataclass(frozen=True)
class GridRun:
    """One run of a sweep.

    Attributes:
        name: the name of its folder, made from its settings.
        settings: the settings that the sweep varies -> this run's values.
        config: its complete config.
        origin: where it comes from: `preset NAME`, or the path of a TOML file.
    """

    name: str
    settings: Mapping[str, Any]
    config: Config
    origin: str = ""


def build_grid(source: str, arguments: Sequence[str]) -> list[GridRun]:
    """The runs of `acorn sweep SOURCE ARGUMENTS`, the first key varying slowest.

    Args:
        source: a preset's name or a TOML file.
        arguments: overrides; those with several values (see `values_of`) form the grid.

    Raises:
        UsageError: nothing is varied, a value is wrong, or two runs would be the same.
    """
    given = [read_override(argument) for argument in arguments]
    if twice := [key for key, times in Counter(key for key, _ in given).items() if times > 1]:
        raise UsageError(f"{twice[0]} is given twice.", where="acorn sweep", fix=f"give it once; {LIST_SYNTAX}")
    for key, value in given:
        _check_quoted(key, value)
    several = {key: values_of(key, value) for key, value in given}
    fixed = [argument for argument, (key, _) in zip(arguments, given, strict=True) if several[key] is None]
    varied = {key: values for key, values in several.items() if values is not None}
    if not varied:
        raise UsageError(
            "No setting has several values: there is nothing to sweep.", where="acorn sweep", fix=LIST_SYNTAX
        )
    if none := [key for key, values in varied.items() if not values]:
        raise UsageError(f"{none[0]} has no value.", where=f"{none[0]}=[]", fix=LIST_SYNTAX)
    combinations = [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    names = _names(combinations)
    origin = f"preset {source}" if source in (*preset_names(), *FORMER_PRESETS) else source
    overrides = [
        [*fixed, *(override_of(key, value) for key, value in settings.items())]
        + ([] if "name" in several else [override_of("name", name)])
        for name, settings in zip(names, combinations, strict=True)
    ]
    configs = _configs(source, names, overrides)
    runs = [
        GridRun(name, settings, config, origin)
        for name, settings, config in zip(names, combinations, configs, strict=True)
    ]
    _check_distinct(runs)
    return runs


def values_of(key: str, value: Any) -> list[Any] | None:
    """The values that an override gives for `key`; None if it gives only one.

    A list gives several values, unless the setting is itself a list: then a list is one value, and a list of lists
    gives several.
    """
    if not isinstance(value, list):
        return None
    if isinstance(flatten(Config()).get(key), tuple):
        return value if any(isinstance(item, list) for item in value) else None
    return value


def _check_quoted(key: str, value: Any) -> None:
    """Refuses `[gpt2,modern]` and `[0.1,0.2`: they are not TOML lists, so they were read as one string."""
    is_list = isinstance(flatten(Config()).get(key), tuple)  # its strings may be glob patterns, such as [ab].txt
    if isinstance(value, str) and not is_list and value.startswith("[") != value.endswith("]"):
        raise UsageError(f"{key}={value} has one bracket of a list only.", where="acorn sweep", fix=LIST_SYNTAX)
    if not isinstance(value, str) or is_list or not (value.startswith("[") and value.endswith("]")):
        return
    quoted = re.sub(r"[^\[\],]+", lambda item: _quoted(item[0]), value)
    is_right = isinstance(read_override(f"{key}={quoted}")[1], list)
    raise UsageError(
        f"{key}={value} is not a list: strings in a list need quotes.",
        where="acorn sweep",
        fix=f"write '{key}={quoted}'" if is_right else LIST_SYNTAX,
    )


def _quoted(item: str) -> str:
    """A list item as valid TOML: a string without quotes gets them."""
    item = item.strip()
    is_toml = not item or read_override(f"item={item}")[1] != item or item.startswith(('"', "'"))
    return item if is_toml else json.dumps(item, ensure_ascii=False)


def _configs(source: str, names: Sequence[str], overrides: Sequence[Sequence[str]]) -> list[Config]:
    """The config of each run.

    Raises:
        UsageError: a config is not valid; the message names the run, unless all runs have the same error.
    """
    configs: list[Config] = []
    faults: list[tuple[str, UsageError]] = []
    for name, own in zip(names, overrides, strict=True):
        try:
            configs.append(load_config(source, own))
        except UsageError as error:
            faults.append((name, error))
    if faults:
        name, first = faults[0]
        if not configs and all(error.what == first.what for _, error in faults):
            raise first
        raise UsageError(f"The config of the run {name} is not valid. {first.what}", where=first.where, fix=first.fix)
    return configs


def _names(combinations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A folder name for each combination. All differ, even if the file system ignores case."""
    keys = short_keys(list(combinations[0]))
    names: list[str] = []
    for settings in combinations:
        name = ",".join(f"{keys[key]}={_for_a_file(value)}" for key, value in settings.items())
        if len(name.encode()) > MAX_NAME_BYTES or name.casefold() in map(str.casefold, names):
            digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
            name = name.encode()[: MAX_NAME_BYTES - 9].decode("utf-8", "ignore") + "~" + digest
        names.append(name)
    return names


def _for_a_file(value: Any) -> str:
    """`value` without the characters that have a meaning in file names, shells or URLs."""
    if isinstance(value, int | float):  # with its minus sign, or -1 and 1 would get the same name
        return shown(value)
    return re.sub(r"[^\w.+-]+", "-", shown(value)).strip("-") or "empty"


def _check_distinct(runs: Sequence[GridRun]) -> None:
    """Raises UsageError if two runs have the same settings: they would be the same run."""
    seen: dict[str, str] = {}
    for run in runs:
        values = {key: value for key, value in flatten(run.config).items() if key != "name"}
        first = seen.setdefault(repr(values), run.name)
        if first != run.name:
            raise UsageError(
                f"Two runs would be the same: {first} and {run.name}.", where="acorn sweep", fix="give each value once"
            )
