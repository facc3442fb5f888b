"""Writes docs/commands.md from the program's own help. `--check` only checks that it is up to date."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from acorn.cli.app import app
from acorn.cli.usage import EXAMPLES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"

HEAD = """# Every command

<!-- Made by tools/command_reference.py from the help of the commands. -->

`acorn COMMAND --help` prints the same. Square brackets mark what may be left out, and three dots what may be repeated.
See also the [exit codes](files.md#exit-codes) and the [settings](config.md) that `KEY=VALUE` stands for.
"""


def reference() -> str:
    """The page as text: a section for each command."""
    command = typer.main.get_command(app)
    return "\n".join([HEAD, *(section(*found) for found in commands(command, command.make_context("acorn", ["demo"])))])


def commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """A command and those below it, each with the context that knows its whole name."""
    yield command, context
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, type(context)(inner, info_name=name, parent=context))


def section(command: Any, context: Any) -> str:
    """What `--help` says of one command, as Markdown."""
    parts = [f"## {context.command_path}", "\n\n".join(paragraphs(command.help or ""))]
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts.append(f"```text\n{' '.join(usage.split())}\n```")
    parameters = [parameter for parameter in command.get_params(context) if parameter.name != "help"]
    for title, kind in (("argument", "argument"), ("option", "option")):
        rows = [row(parameter, context) for parameter in parameters if parameter.param_type_name == kind]
        if rows := [found for found in rows if found]:
            parts.append("\n".join([f"| {title} | meaning |", "|---|---|", *rows]))
    if examples := EXAMPLES.get(context.info_name):
        parts += ["Examples:", "\n".join(f"    {line}" for line in examples)]
    inner = getattr(command, "commands", {})
    if inner:
        path = context.command_path.replace(" ", "-")
        found = [
            f"| [`{name}`](#{path}-{name}) | {as_markdown(one.get_short_help_str(200))} |"
            for name, one in inner.items()
        ]
        parts.append("\n".join(["| command | does |", "|---|---|", *found]))
    return "\n\n".join(parts) + "\n"


def row(parameter: Any, context: Any) -> str:
    """A row of a table, or nothing for a parameter without a help text."""
    record = parameter.get_help_record(context)
    if record is None or not record[1]:
        return ""
    name, meaning = (" ".join(text.split()).replace("|", r"\|") for text in record)
    return f"| `{name}` | {as_markdown(meaning)} |"


def as_markdown(text: str) -> str:
    """Help in which options are code, and no `<` outside code begins a tag."""
    text = re.sub(r"(?<![\w`])--[a-z][a-z-]*", r"`\g<0>`", text)
    return re.sub(r"(`[^`]*`)|<", lambda found: found[1] or "&lt;", text)


def paragraphs(text: str) -> list[str]:
    """A docstring's paragraphs, each on one line."""
    return [as_markdown(" ".join(part.split())) for part in re.split(r"\n\s*\n", text.strip())]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != reference())
    PAGE.write_text(reference(), "utf-8")
