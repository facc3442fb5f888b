"""The reference of settings: type, default, allowed values and meaning of each, taken from `config.py`."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from acorn.config import Config
from acorn.config_files import FORMER_PRESETS, preset_names
from acorn.errors import UsageError
from acorn.setting_names import nearest_keys, sections

TYPES = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: dotted, as on the command line.
        type: in words: "integer", "number", "text", "true or false", "list of text"; several are joined by ", or".
        default: where a config does not set it; presets may set it.
        choices: the only strings and booleans it accepts; empty: any value of its type.
        minimum, maximum: limits of numbers; None: no limit.
        above, below: whether the limit itself is excluded.
        form: the form that text must have; empty: any.
        description: one line, with the unit.
    """

    key: str
    type: str
    default: Any
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    above: bool
    below: bool
    form: str
    description: str

    @property
    def allowed(self) -> str:
        """The allowed values in words; empty where every value of the type is allowed."""
        if self.choices:
            return ", ".join(self.choices)
        if self.form:
            return self.form
        low = "" if self.minimum is None else f"above {self.minimum:,}" if self.above else f"{self.minimum:,} or more"
        high = "" if self.maximum is None else f"below {self.maximum:,}" if self.below else f"{self.maximum:,} or less"
        if low and high and not (self.above or self.below):
            return f"{self.minimum:,} to {self.maximum:,}"
        return " and ".join(limit for limit in (low, high) if limit)


def settings() -> list[Setting]:
    """Every setting, in the order of the config file."""
    inside = sections()
    alone = [_setting(name, field) for name, field in Config.model_fields.items() if name not in inside]
    return alone + [
        _setting(f"{name}.{key}", field)
        for name, section in inside.items()
        for key, field in section.model_fields.items()
    ]


def find_settings(key: str) -> list[Setting]:
    """The settings that `key` names: one dotted key, all keys of a section, or every key that ends in this name.

    Raises:
        UsageError: there is none; the message suggests the nearest key, or says that `key` is a preset.
    """
    if not key.strip():
        raise UsageError(
            "An empty string is not a setting.",
            where="acorn config",
            fix="name a setting, such as optimizer.lr, or none to list them all",
        )
    everything = settings()
    for matches in (
        [setting for setting in everything if setting.key == key],
        [setting for setting in everything if setting.key.startswith(f"{key}.")],
        [setting for setting in everything if setting.key.rpartition(".")[2] == key],
    ):
        if matches:
            return matches
    if FORMER_PRESETS.get(key, key) in preset_names():
        raise UsageError(
            f"There is no setting {key}; {key} is a preset.",
            where=f"acorn config {key}",
            fix=f"`acorn presets {key}` shows everything that it sets",
        )
    near = nearest_keys(key)
    raise UsageError(
        f"There is no setting {key}" + (f"; did you mean {' or '.join(near)}?" if near else "."),
        where=f"acorn config {key}",
        fix="`acorn config` lists them all",
    )


def shown(value: object) -> str:
    """A value as it is written in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _setting(key: str, field: FieldInfo) -> Setting:
    limits = {
        name: getattr(limit, name)
        for limit in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    return Setting(
        key=key,
        type=_type(field.annotation),
        default=field.default,
        choices=_choices(field.annotation),
        minimum=limits.get("ge", limits.get("gt")),
        maximum=limits.get("le", limits.get("lt")),
        above="gt" in limits,
        below="lt" in limits,
        form=_form(field),
        description=field.description or "",
    )


def _form(field: FieldInfo) -> str:
    pattern = next((limit.pattern for limit in field.metadata if getattr(limit, "pattern", None)), None)
    is_text = field.annotation is str
    return f"matches {pattern}" if pattern else "not empty" if is_text and field.metadata else ""


def _type(annotation: object) -> str:
    """A field's type in words."""
    kinds = list(dict.fromkeys(_kinds(annotation)))
    return ", or ".join(kinds)


def _kinds(annotation: object) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (TYPES[type(value)] for value in get_args(annotation))
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif get_origin(annotation) is tuple:
        yield "list of " + _type(get_args(annotation)[0])
    else:
        assert isinstance(annotation, type)
        yield TYPES[annotation]


def _choices(annotation: object) -> tuple[str, ...]:
    """The strings and booleans that a field accepts, if it accepts nothing else."""
    found: list[str] = []
    for part in [annotation, *get_args(annotation)]:
        if get_origin(part) is Literal:
            found += [str(value) for value in get_args(part)]
        elif part is bool:
            found += ["true", "false"]
    return tuple(dict.fromkeys(found))
