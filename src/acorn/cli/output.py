"""What all commands print: one JSON object, or lines of names and values."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def print_json(value: Any) -> None:
    """Prints exactly one JSON object."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """`value` as JSON on one line; characters that stdout's encoding lacks become JSON escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text


def check_stdout() -> None:
    """Called before long work whose only result goes to stdout.

    Raises:
        ResourceError: stdout is closed.
    """
    print(end="")


def print_facts(facts: Mapping[str, Any]) -> None:
    """One line per fact, values in a column; numbers as a person reads them. Facts without a value are left out."""
    known = {name.replace("_", " "): value for name, value in facts.items() if value is not None}
    width = max((len(name) for name in known), default=0)
    for name, value in known.items():
        print(f"{name:<{width}}  {readable(value)}")


def readable(value: Any) -> str:
    """A value as a person reads it: digits grouped, floats at four decimals, one from a thousand on."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.1f}"
    return str(value)
