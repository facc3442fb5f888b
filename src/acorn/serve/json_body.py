"""The body of a request as a JSON object, or the reason why it is none."""

from __future__ import annotations

import json
import math
from typing import Any

from acorn.errors import shown
from acorn.serve.limits import LIMITS, Limits
from acorn.serve.request_errors import RequestError, bad

LARGEST_INTEGER = 2**63 - 1
"""Integers in a body fit into 64 bits, as those of most programs do."""


def json_object(body: bytes, limits: Limits = LIMITS) -> dict[str, Any]:
    """The object that `body` holds.

    An object with the same key twice is refused: programs disagree which of them counts.

    Raises:
        RequestError: 400, with the reason.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_json(f"The body is not UTF-8: byte {error.start:,} does not fit.") from None
    try:
        found = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise _too_deep(limits) from None
    except json.JSONDecodeError as error:
        raise _no_json(f"The body is not JSON: {error.msg}, at character {error.pos:,}.") from None
    if not isinstance(found, dict):
        raise _no_json("The body is not a JSON object.")
    _check(found, limits)
    return found


def _no_json(message: str) -> RequestError:
    return bad(message, code="invalid_json")


def _too_deep(limits: Limits) -> RequestError:
    return _no_json(f"The body is nested too deeply: nesting is at most {limits.nesting} levels.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _no_json(f"The key {shown(twice)} occurs twice in an object.")
    return found


def _refuse_constant(name: str) -> Any:
    raise _no_json(f"{name} is not a JSON value.")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _no_json(f"The number {digits[:40]} is too large.")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -LARGEST_INTEGER - 1 <= (value := int(digits)) <= LARGEST_INTEGER:
        raise _no_json(f"The number {digits[:40]} does not fit into 64 bits.")
    return value


def _check(value: object, limits: Limits, depth: int = 1) -> None:
    """Refuses deep nesting, and text that is not Unicode: `\\ud800` alone is half a character."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _no_json("A string contains half of a surrogate pair, which is not a character.") from None
    elif isinstance(value, dict | list):
        if depth > limits.nesting:
            raise _too_deep(limits)
        for inner in value.values() if isinstance(value, dict) else value:
            _check(inner, limits, depth + 1)
        if isinstance(value, dict):
            for key in value:
                _check(key, limits, depth + 1)
