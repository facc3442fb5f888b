"""Writes docs/config.md from the descriptions in src/acorn/config.py. `--check` only checks that it is up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from acorn.config_reference import settings, shown
from acorn.setting_names import sections

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"

HEAD = """# Every setting

<!-- Made by tools/config_reference.py from src/acorn/config.py. -->

A config is a TOML file with the sections below, or a preset's name. On the command line `section.key=value` overrides
it: the value is TOML (`train.compile=true`, `'data.source=["a.txt", "b.txt"]'`), else a bare string
(`'data.source=my/*.txt'`). Unknown keys and wrong values are refused, all of them at once.
"""


def reference() -> str:
    """The page as text."""
    alone = [setting for setting in settings() if "." not in setting.key]
    parts = [
        HEAD,
        *(f"`{setting.key}` (default `{setting.default}`): {escaped(setting.description)}\n" for setting in alone),
    ]
    for name, section in sections().items():
        rows = ["| key | default | choices | meaning |", "|---|---|---|---|"]
        for setting in settings():
            if setting.key.startswith(f"{name}."):
                choices = ", ".join(f"`{value}`" for value in setting.choices)
                rows.append(
                    f"| `{setting.key}` | `{shown(setting.default)}` | {choices} | {escaped(setting.description)} |"
                )
        parts.append(f"## {name}\n\n{section.__doc__}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Markdown in which no `<` outside code begins a tag."""
    return re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", text)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != reference())
    PAGE.write_text(reference(), "utf-8")
