"""What all verbs print: one JSON object, or lines of names and figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def print_json(value: Any) -> None:
    """Exactly one JSON object on stdout; in JSON's own escapes where stdout's encoding does not have its characters."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    print(text)


def check_stdout() -> None:
    """Before long work whose result goes to stdout alone.

    Raises:
        ResourceError: stdout is closed.
    """
    print(end="")


def print_facts(facts: Mapping[str, Any]) -> None:
    """One line a fact, values in a column; numbers as a person reads them, facts without a value left out."""
    known = {name.replace("_", " "): value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in known), default=0)
    for name, value in known.items():
        print(f"{name:<{width}}  {_readable(value)}")


def _readable(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.1f}"
    return str(value)
