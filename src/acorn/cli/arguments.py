"""Checks of the arguments that apply to every command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from acorn.files import check_links, check_unicode, path_named

TEXT_OPTIONS = frozenset({"--prompt", "--stop", "--system", "--text"})
"""Options whose value is text for the model; the tokenizer checks it."""


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuses arguments that may be paths and are not Unicode text.

    Raises:
        UsageError: an argument is not Unicode text.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if not TEXT_OPTIONS & {before, argument.partition("=")[0]}:
            check_unicode(argument, "the command line")


def path_from(argument: str) -> Callable[[str], Path]:
    """What reads the value of a path: typer would take an empty string for the current folder.

    Args:
        argument: the option or argument, for the message. `--out` names what will be written.
    """

    def path(text: str) -> Path:
        named = path_named(text, argument)
        if argument == "--out":
            check_links(named, argument)
        return named

    return path
