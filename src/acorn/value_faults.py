"""What a setting or an option should have been, in plain words instead of pydantic's."""

from __future__ import annotations

from typing import Any

_WANTED = {
    "bool": "true or false",
    "finite_number": "a finite number",
    "float": "a number",
    "int": "a whole number",
    "model": "a section with settings",
    "string_pattern_mismatch": "a name without slashes and control characters",
    "string_too_short": "text that is not empty",
}
"""pydantic's name of an error, or the first word of it -> what the value should be."""

_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
"""pydantic's name of an error -> the word before its limit, and pydantic's name of the limit."""


def wanted(detail: Any) -> str:
    """What a value should have been: `a whole number`, `above 0`, `'none' or 'wikitext'`.

    Args:
        detail: one of the errors of a pydantic `ValidationError`.
    """
    kind = detail["type"]
    if kind in _LIMITS:
        word, name = _LIMITS[kind]
        limit = detail["ctx"][name]
        return f"{word} {int(limit) if limit == int(limit) else limit:,}"
    if kind == "literal_error":
        return str(detail["ctx"]["expected"])
    return _WANTED.get(kind) or _WANTED.get(kind.partition("_")[0]) or detail["msg"].removeprefix("Input should be ")
