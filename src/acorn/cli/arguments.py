"""What holds for the arguments of every command, before any of them is looked at."""

from __future__ import annotations

from collections.abc import Sequence

from acorn.files import check_unicode

TEXT_OPTIONS = frozenset({"--prompt", "--stop", "--system", "--text"})
"""Options whose value is text for the model, which says itself what it cannot take."""


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuses paths, and what may name one, that are not Unicode text.

    Raises:
        UsageError: as `check_unicode`.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if not TEXT_OPTIONS & {before, argument.partition("=")[0]}:
            check_unicode(argument, "the command line")
