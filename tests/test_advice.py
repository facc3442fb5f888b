"""Commands in messages can be pasted into a shell."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
from pathlib import Path

import typer

from acorn.advice import acorn_command, resume_command
from acorn.cli.app import app

SOURCE = Path(__file__).resolve().parents[1] / "src" / "acorn"
WITHOUT_PATHS = {"config", "presets"}
"""Commands whose arguments are names of settings and presets, which need no quotes."""
VERBS = sorted(typer.main.get_command(app).commands.keys() - WITHOUT_PATHS)
COMMAND = re.compile(rf"acorn ({'|'.join(VERBS)})\b[^.;`]*$")
"""A command in an f-string, up to the value that follows it."""


def test_a_shell_parses_the_command_into_the_same_arguments() -> None:
    words = ["pretrain", "it's my run/[1]", 'data.source=["a b.txt"]', "$HOME", "", "train.steps=5"]
    script = f"acorn() {{ printf '%s\\n' \"$@\"; }}; {acorn_command(*words)}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"{word}\n" for word in words)


def test_simple_arguments_are_not_quoted() -> None:
    told = "acorn pretrain --resume --out runs/a train.steps=500"
    assert resume_command(Path("runs/a"), "train.steps=500") == told


def test_messages_only_use_quoted_commands() -> None:
    """A path in any other command would not be quoted."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for text in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = text.values if isinstance(text, ast.JoinedStr) else []
            for part, value in itertools.pairwise(parts):
                is_text = isinstance(part, ast.Constant) and isinstance(value, ast.FormattedValue)
                if is_text and COMMAND.search(str(part.value)):
                    found.append(f"{path.relative_to(SOURCE)}:{text.lineno}")
    assert found == []
