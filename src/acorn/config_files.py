"""Configs as text: preset or TOML file, then dotted overrides, then one checked `Config`; and back to TOML.

All errors in a config are reported together, each unknown key with the nearest valid one.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from acorn.advice import acorn_command
from acorn.config import Config, Section
from acorn.errors import DamageError, UsageError, shown
from acorn.files import path_named, permission_denied
from acorn.pickles import refuse_pickle
from acorn.setting_names import all_keys, nearest_keys, section_keys
from acorn.value_faults import wanted

SEAL_LINE = "# SHA-256 of the lines above: "
_RESTORE = (
    "copy config.toml back from the run's newest checkpoint, which has the same content; change settings on the "
    "command line instead, such as train.steps=500"
)
_NOT_TOML = (ValueError, RecursionError)
"""tomllib raises ValueError, as Python does for integers of thousands of digits; deep nesting raises RecursionError."""

LENGTHS = ("train.steps", "train.minutes", "finetune.epochs")
"""Settings of which one sets the length of a run."""

ONLY_FINETUNING = ("finetune", "lora")
"""Sections that a config.toml has only where one of their settings is not the default."""

FORMER_PRESETS = {"seed": "original"}
"""Former name of a preset -> its current name. A run started under the former name keeps that name and its folder."""

TEXT_ENDINGS = frozenset({".txt", ".md", ".csv", ".tsv", ".html", ".htm", ".jsonl", ".parquet", ".gz", ".xz", ".zst"})


def preset_names() -> list[str]:
    """Names of the presets that ship with acorn, sorted."""
    folder = resources.files("acorn") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def preset_purpose(name: str) -> str:
    """What a preset is for: the first line of its file."""
    text = (resources.files("acorn") / "presets" / f"{name}.toml").read_text("utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def find_preset(name: str) -> str:
    """The current name of a preset.

    Raises:
        UsageError: no preset has this name; the message suggests the nearest one.
    """
    preset = FORMER_PRESETS.get(name, name)
    if preset in preset_names():
        return preset
    near = difflib.get_close_matches(name.lower(), preset_names(), n=1)
    raise UsageError(
        f"There is no preset {name!r}" + (f"; did you mean {near[0]}?" if near else "."),
        where=f"acorn presets {name}",
        fix=f"choose one of {', '.join(preset_names())}",
    )


def preset_values(name: str) -> dict[str, Any]:
    """What a preset sets: dotted key -> value, in the order of its file."""
    text, where, _ = _read(name)
    values: dict[str, Any] = {}
    for section, content in _parse(text, where).items():
        values |= {f"{section}.{key}": value for key, value in content.items()}
    return values


def load_config(source: str | Path | None = None, overrides: str | Sequence[str] = ()) -> Config:
    """The config of a preset name or TOML file (none: the defaults), with `key=value` overrides on top.

    A lone string of `overrides` stands for a list of one.

    Raises:
        UsageError: the source does not exist, is not TOML, or any key or value is wrong (all are listed).
    """
    if source is None:
        values: dict[str, Any] = {}
        where = "the defaults"
    else:
        text, where, name = _read(source)
        values = _parse(text, where)
        values.setdefault("name", name)
        if SEAL_LINE not in text:  # a run's own config has its epochs and the steps that they come to
            _check_one_length(_lengths_in(values), where)
    return config_of(values, where, overrides)


def config_of(values: Mapping[str, Any], where: str, overrides: str | Sequence[str] = ()) -> Config:
    """The config of nested `values`, with `key=value` overrides on top.

    Args:
        where: where the values are from, for messages.

    Raises:
        UsageError: any key or value is wrong (all are listed).
    """
    overrides = as_list(overrides)
    return build_config(
        _apply(values, overrides), where, {override.partition("=")[0].strip() for override in overrides}
    )


def _lengths_in(values: Mapping[str, Any]) -> set[str]:
    """The settings of nested values that set the length of a run."""
    tables = {section: table for section, table in values.items() if isinstance(table, Mapping)}
    return {key for key in LENGTHS if tables.get(key.partition(".")[0], {}).get(key.partition(".")[2])}


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config that a run wrote into its own folder, with `key=value` overrides on top.

    Raises:
        DamageError: the file is missing, or is not what the run wrote.
        InputError: reading it is not permitted.
        UsageError: an override is wrong.
    """
    try:
        content = path.read_bytes()
    except PermissionError:
        raise permission_denied(path) from None
    except OSError as error:
        raise DamageError(f"{path.name} cannot be read: {error.strerror}.", where=str(path), fix=_RESTORE) from None
    text, found, digest = content.decode("utf-8", "replace").rpartition(SEAL_LINE)
    if not found or digest != _sha256(text) + "\n":
        raise DamageError(f"{path.name} was changed after the run wrote it.", where=str(path), fix=_RESTORE)
    return load_config(path, overrides)


IDLE_KEYS: Mapping[str, frozenset[str]] = {
    "acorn tokenizer train": frozenset({"data.shards", "data.shard_tokens", "data.shuffle_group", "tokenizer.path"}),
    "acorn data prepare": frozenset({"data.shards", "data.shuffle_group"}),
    "acorn evaluate --input": frozenset(
        f"data.{key}"
        for key in (
            *("source", "valid_source", "test_source", "valid_fraction", "dedup", "overlap"),
            *("shards", "shard_tokens", "shuffle_group"),
        )
    ),
}
"""Commands that read text without a run -> settings that have no effect there. All other settings of `data` have one,
and those of `tokenizer` where a tokenizer is trained."""

EVALUATE_TEXT, EVALUATE_ROWS = "acorn evaluate --input", "acorn evaluate --input (rows)"
PREDICT = "acorn predict --input"
_OF_ROWS = ("data.encoding", "data.errors", "finetune.overlong", "finetune.text_field")
ACTING_KEYS: Mapping[str, tuple[str, ...]] = {
    EVALUATE_ROWS: (*_OF_ROWS, "finetune.label_field", "finetune.prompt_field", "finetune.completion_field"),
    PREDICT: _OF_ROWS,
}
"""Commands that read rows for a finetuned model -> the settings that have an effect there."""


def with_overrides(config: Config, overrides: str | Sequence[str], command: str) -> Config:
    """`config` with `key=value` overrides, for a command that reads text without a run.

    Args:
        command: one of IDLE_KEYS or ACTING_KEYS.

    Raises:
        UsageError: a key has no effect there (all such keys are listed, with suggestions), or a value is wrong.
    """
    overrides = as_list(overrides)
    check_acting(overrides, command, _acting_keys(command))
    return build_config(_apply(config.model_dump(), overrides), command)


def check_evaluated(overrides: Sequence[str]) -> None:
    """Refuses `key=value` settings of `acorn evaluate --input` that have an effect neither on text nor on rows.

    Raises:
        UsageError: there is one, or a value is wrong.
    """
    acting = list(dict.fromkeys([*_acting_keys(EVALUATE_TEXT), *_acting_keys(EVALUATE_ROWS)]))
    check_acting(overrides, EVALUATE_TEXT, acting)
    build_config(_apply({}, overrides), EVALUATE_TEXT)


def check_acting(overrides: Sequence[str], command: str, acting: Sequence[str]) -> None:
    """Refuses `key=value` settings of which the key is none of `acting`.

    Raises:
        UsageError: there are some; all are listed, with suggestions.
    """
    faults = [fault for override in overrides if (fault := _key_fault(override.partition("=")[0].strip(), acting))]
    if faults:
        raise UsageError(
            "These settings cannot be used here:\n" + "\n".join(f"  - {fault}" for fault in faults),
            where=command,
            fix=f"it takes {', '.join(acting)}; `acorn config` has their meaning",
        )


def _acting_keys(command: str) -> list[str]:
    """The settings that have an effect in a command that reads text or rows without a run."""
    if command in ACTING_KEYS:
        return list(ACTING_KEYS[command])
    sections = ("data", "tokenizer") if command == "acorn tokenizer train" else ("data",)
    return [key for section in sections for key in section_keys(section) if key not in IDLE_KEYS[command]]


def build_config(values: Mapping[str, Any], where: str, overridden: Collection[str] = ()) -> Config:
    """Checks nested `values` into a `Config`.

    Args:
        where: where the values are from, for messages.
        overridden: the dotted keys that are from the command line instead.

    Raises:
        UsageError: lists every error in `values`, one line each.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        # pydantic reports a union once for each of its types; a reader needs one line.
        by_place: dict[str, list[Any]] = {}
        for detail in error.errors():
            by_place.setdefault(".".join(str(part) for part in detail["loc"][:2]), []).append(detail)
        faults = [_fault(details[-1], details) for details in by_place.values()]
    count = "one error" if len(faults) == 1 else f"{len(faults)} errors"
    raise UsageError(
        f"The config has {count}:\n" + "\n".join(f"  - {fault}" for fault in faults),
        where=_origin(by_place, where, overridden),
        fix=f"correct the {'setting' if len(faults) == 1 else 'settings'} above; `acorn config` lists all settings "
        "with their meaning",
    )


def _origin(wrong: Collection[str], where: str, overridden: Collection[str]) -> str:
    """Where wrong settings are from: the command line, `where`, or both.

    Args:
        wrong: settings, sections whose settings contradict each other, or "" for the whole config.
        overridden: the settings that the command line gives.
    """
    if set(wrong) <= set(overridden):
        return "the command line"
    sections = {key.partition(".")[0] for key in overridden} | ({""} if overridden else set())
    is_mixed = any(place in overridden or ("." not in place and place in sections) for place in wrong)
    return f"{where}, with the settings of the command line" if is_mixed else where


def to_toml(config: Config) -> str:
    """Every field of `config` as TOML, each with its description. `load_config` reads the same value back.

    The last line is a digest of the others; `load_run_config` uses it to see whether the file was changed.
    """
    lines = ["# Every setting of this run, as resolved.", f"name = {to_toml_value(config.name)}"]
    for section_name, section in config:
        if not isinstance(section, Section) or (section_name in ONLY_FINETUNING and section == type(section)()):
            continue
        lines += ["", f"[{section_name}]"]
        for key, field in type(section).model_fields.items():
            lines += [f"# {field.description}", f"{key} = {to_toml_value(getattr(section, key))}"]
    text = "\n".join(lines) + "\n"
    return f"{text}{SEAL_LINE}{_sha256(text)}\n"


def with_values(config: Config, changes: Mapping[str, Any]) -> Config:
    """A copy of `config` with dotted keys set to new values, checked like any other config."""
    values = config.model_dump()
    for key, value in changes.items():
        section, dot, name = key.partition(".")
        if dot:
            values[section][name] = value
        else:
            values[section] = value
    return build_config(values, "the config with " + ", ".join(changes))


def flatten(config: Config) -> dict[str, Any]:
    """Dotted key -> value, in the order of the config file."""
    flat: dict[str, Any] = {"name": config.name}
    for section_name, section in config:
        if isinstance(section, Section):
            flat.update({f"{section_name}.{key}": value for key, value in section})
    return flat


SINGLE_PATHS = frozenset({"data.shards", "tokenizer.path", "train.init_from"})
"""Settings that name one file or folder. Without a value, such as that of a shell variable that is not set, they would
count as not given."""


def read_override(text: str) -> tuple[str, Any]:
    """Key and value of `key=value`; the value is read as TOML, or as a bare string where it is not TOML.

    Raises:
        UsageError: `text` does not have this form, or a path has no value.
    """
    key, equals, raw = text.partition("=")
    if text.strip() in all_keys():
        raise UsageError(
            f"The setting {text.strip()} has no value.",
            where="the command line",
            fix=f"write {text.strip()}=VALUE, without spaces around the equals sign",
        )
    if not equals or not key.strip():
        raise UsageError(
            f"{text!r} is not a setting.",
            where="the command line",
            fix="write key=value, such as train.steps=200",
        )
    if not raw.strip() and key.strip() in SINGLE_PATHS:
        raise UsageError(
            f"{text!r} names nothing.",
            where="the command line",
            fix=f"leave it out; to clear the value of a config file, write '{key.strip()}=\"\"'",
        )
    return key.strip(), _override_value(raw)


def override_of(key: str, value: Any) -> str:
    """The override that sets `key` to `value`."""
    return f"{key}={to_toml_value(value)}"


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ -> (old value, new value)."""
    before, after = flatten(old), flatten(new)
    return {key: (before[key], after[key]) for key in after if before[key] != after[key]}


def _read(source: str | Path) -> tuple[str, str, str]:
    """Text, location and run name of a preset or TOML file."""
    path = path_named(source, "CONFIG")
    if path.suffix in TEXT_ENDINGS:
        raise UsageError(
            f"{path.name} is a text file, not a config.",
            where="CONFIG",
            fix="name a preset first, then the text: " + acorn_command("pretrain", "small", f"data.source={source}"),
        )
    refuse_pickle(path, "CONFIG", kind=UsageError, fix="name a preset or a TOML file")
    preset = FORMER_PRESETS.get(str(source), str(source))
    if preset in preset_names():
        text = (resources.files("acorn") / "presets" / f"{preset}.toml").read_text("utf-8")
        return text, f"preset {preset}", str(source)
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe may block forever
        raise UsageError(
            "The config file cannot be read: it is not a regular file.",
            where=str(path),
            fix="give a TOML file in UTF-8",
        )
    try:
        return path.read_text("utf-8-sig"), str(path), path.stem
    except FileNotFoundError:
        near = difflib.get_close_matches(str(source), preset_names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"There is no config file or preset {str(source)!r}{hint}",
            where=str(path.absolute()),
            fix=f"name a TOML file or one of the presets: {', '.join(preset_names())}",
        ) from None
    except PermissionError:
        raise permission_denied(path) from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or an impossible file name
        raise UsageError(
            f"The config file cannot be read: {error}", where=str(path), fix="give a TOML file in UTF-8"
        ) from error


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except _NOT_TOML as error:
        raise UsageError(f"The config is not TOML: {error}", where=where, fix="correct the line named above") from None


def _check_one_length(given: Collection[str], where: str) -> None:
    """Refuses steps beside epochs. (Minutes beside one of them are refused by the config itself.)

    Raises:
        UsageError: `given` has both.
    """
    if {"train.steps", "finetune.epochs"} <= set(given):
        raise UsageError("train.steps and finetune.epochs exclude each other.", where=where, fix="set one of them")


def _apply(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with `section.key=value` overrides.

    A length in an override clears the other kinds of length; `train.init_from` clears the network and the tokenizer.
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    given: set[str] = set()
    for override in overrides:
        key, value = read_override(override)
        section, dot, name = key.partition(".")
        if dot:
            table = result.setdefault(section, {})
            if not isinstance(table, dict):
                raise UsageError(
                    f"{section!r} is a value, not a section.",
                    where=override,
                    fix="write section.key=value",
                )
            table[name] = value
        else:
            result[section] = value
        given.add(key)
    if "train.init_from" in given:
        for section in ("model", "tokenizer"):
            table = result.get(section)
            if isinstance(table, dict):
                result[section] = {name: table[name] for name in table if f"{section}.{name}" in given}
    _check_one_length(given & _lengths_in(result), "the command line")
    if given & set(LENGTHS):
        for key in LENGTHS:
            section, _, name = key.partition(".")
            if key not in given and isinstance(result.get(section), dict):
                result[section].pop(name, None)
    return result


def as_list(overrides: str | Sequence[str]) -> list[str]:
    """A lone string stands for a list of one.

    Raises:
        UsageError: it is neither a string nor a list of strings, which Python lets a caller pass.
    """
    listed = [overrides] if isinstance(overrides, str) else overrides
    listed = list(listed) if isinstance(listed, Iterable) else [listed]
    if not all(isinstance(override, str) for override in listed):
        raise UsageError(
            f"overrides cannot be {shown(overrides)}.",
            where="overrides",
            fix='give strings such as "train.steps=200", or leave it out',
        )
    return listed


def _key_fault(key: str, acting: Sequence[str]) -> str:
    """What is wrong with `key` where only the keys `acting` have an effect; empty: nothing."""
    if not key or key in acting:  # an empty key is reported later
        return ""
    if key in all_keys():
        return f"{key} has no effect here"
    near = nearest_keys(key, acting)
    return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")


def _override_value(raw: str) -> Any:
    """The value read as TOML, or the bare string where it is not TOML."""
    try:
        table = tomllib.loads(f"value = {raw}")
    except _NOT_TOML:
        return raw
    return table["value"] if len(table) == 1 else raw


def _fault(detail: Any, of_same_place: Sequence[Any]) -> str:
    """One pydantic error as a line a person can act on.

    Args:
        of_same_place: it and those of the other types that the setting may have.
    """
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        near = nearest_keys(key)
        return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "")
    if detail["type"] == "value_error":
        return f"{key or 'config'}: {detail['ctx']['error']}"
    valid = ".".join(path[:2])
    value = shown(detail["input"])
    if detail["type"] == "int_type" and isinstance(detail["input"], float) and detail["input"].is_integer():
        return f"{valid}: should be written as a whole number, {shown(int(detail['input']))}, not {value}"
    if detail["type"] in ("string_type", "tuple_type"):
        return f"{valid}: should be text, not {value}; quote it: '{valid}=\"{shown(detail['input'], str)}\"'"
    expected = ", ".join(dict.fromkeys(map(wanted, of_same_place)))
    return f"{valid}: should be {expected}, not {shown(detail['input'], to_toml_value)}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def to_toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(_toml_character(character) for character in value) + '"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(to_toml_value(item) for item in value) + "]"
    return repr(value)


def _toml_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if ord(character) < 0x20 or ord(character) == 0x7F:
        return f"\\u{ord(character):04X}"
    return character
