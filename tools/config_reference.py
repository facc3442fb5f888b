"""Writes docs/config.md from the descriptions in src/acorn/config.py. `--check` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from acorn.config import Config, Section

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"

HEAD = """# Every setting

<!-- Made by tools/config_reference.py from src/acorn/config.py. -->

A config is a TOML file with the sections below, or a preset's name. On the command line `section.key=value` overrides
it: the value is TOML (`train.compile=true`, `'data.source=["a.txt", "b.txt"]'`), else a bare string
(`'data.source=my/*.txt'`). Unknown keys and wrong values are refused, all of them at once.
"""


def reference() -> str:
    """The page as text."""
    parts = [HEAD]
    for name, field in Config.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            parts.append(f"`{name}` (default `{field.default}`): {field.description}\n")
            continue
        rows = ["| key | default | choices | meaning |", "|---|---|---|---|"]
        for key, entry in section.model_fields.items():
            choices = ", ".join(f"`{value}`" for value in _choices(entry.annotation))
            rows.append(f"| `{name}.{key}` | `{_shown(entry.default)}` | {choices} | {entry.description} |")
        parts.append(f"## {name}\n\n{section.__doc__}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _choices(annotation: object) -> list[str]:
    """The strings and booleans that a field takes, if it takes only such."""
    found: list[str] = []
    for part in [annotation, *get_args(annotation)]:
        if get_origin(part) is Literal:
            found += [str(value) for value in get_args(part)]
        elif part is bool:
            found += ["true", "false"]
    return list(dict.fromkeys(found))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != reference())
    PAGE.write_text(reference(), "utf-8")
