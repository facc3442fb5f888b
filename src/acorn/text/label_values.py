"""Makes labels and numbers from the values of a label column.

A label is text: 1, "1" and the 1 of a .csv are the same label, and true is the label `true`. White space around a label
is dropped. In a .csv or .tsv everything is text, so the kind of a label is guessed from how it is written.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from decimal import Decimal
from typing import Any, Literal

from acorn.text.examples import RowFault, Unusable, kind_of

LabelKind = Literal["missing", "list", "decimal", "integer", "word"]
SHOWN_CHARACTERS = 60  # of a label, in messages
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LINE_BREAKS = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories of control characters and line separators


def shown(label: object) -> str:
    """A label as messages show it."""
    text = repr(label)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def label_kind(value: object, typed: bool) -> LabelKind:
    """The kind of a label's value; a decimal is a number with a decimal point."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return "missing"
        if typed:
            return "word"
        if _list_in(text) is not None:
            return "list"
        return "word" if not _NUMBER.fullmatch(text) else "integer" if text.lstrip("+-").isdecimal() else "decimal"
    if isinstance(value, bool):
        return "word"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float | Decimal):
        return "missing" if math.isnan(value) else "decimal"
    if isinstance(value, list | tuple):
        return "list"
    return "missing" if value is None or isinstance(value, Unusable) else "word"


def as_label(value: object, typed: bool, name: str = "label") -> str | tuple[str, ...]:
    """The label; of a list its labels, sorted and each once. An empty list means that the example has no label.

    Args:
        name: of the column, for the message.

    Raises:
        RowFault: it cannot be a label.
    """
    if not typed and isinstance(value, str):
        text = value.strip()
        if (listed := _list_in(text)) is not None:
            value = listed
        elif text.startswith("[") and text.endswith("]"):
            raise RowFault(f'The {name} {shown(text)} looks like a list, but is not JSON; write ["a", "b"].')
    if isinstance(value, list | tuple):
        return tuple(sorted({_one_label(part, name) for part in value}))
    return _one_label(value, name)


def as_value(value: object, typed: bool, name: str = "label") -> float:
    """The number of a label.

    Raises:
        RowFault: it is not a number, or not one that a float can represent.
    """
    if isinstance(value, str) and not typed:
        text = value.strip()
        if not text:
            raise RowFault(f"The {name} is empty.")
        if not _NUMBER.fullmatch(text):
            raise RowFault(f"The {name} {shown(text)} is not a number.")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise RowFault(_no_value(value, name, "a number"))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RowFault(f"The {name} is {'NaN' if math.isnan(number) else 'infinite'}, not a number.")
    return number


def _one_label(value: object, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise RowFault(f"The {name} is {'NaN' if math.isnan(value) else 'infinite'}.")
    if isinstance(value, int | float | Decimal):
        return str(value)
    if not isinstance(value, str):
        raise RowFault(_no_value(value, name, "text or an integer"))
    label = value.strip()
    if not label:
        raise RowFault(f"The {name} is empty.")
    control = next((character for character in label if unicodedata.category(character) in _LINE_BREAKS), "")
    if control:
        raise RowFault(f"The {name} {shown(label)} holds the control character U+{ord(control):04X}.")
    return label


def _no_value(value: object, name: str, wanted: str) -> str:
    if isinstance(value, Unusable):
        return f"The {name} {value.reason}."
    return f"The {name} is {kind_of(value)}, not {wanted}."


def _list_in(text: str) -> list[Any] | None:
    """The list that a field of a .csv contains as JSON; None: it does not."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None
