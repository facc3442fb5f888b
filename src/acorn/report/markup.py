"""Pieces of HTML that every part of the report is made of."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from acorn.report.formats import figure, printable


def escaped(text: str) -> str:
    """`text` as content of a page or of a quoted attribute. Samples, names, paths and configs may contain markup."""
    return html.escape(printable(text))


def absent(sentence: str) -> str:
    """Says in one sentence that something is not there."""
    return f'<p class="absent">{escaped(sentence)}</p>'


def with_code(description: str) -> str:
    """Escaped text in which `words between backticks` are set as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escaped(description))


def row_name(key: str) -> str:
    """A key such as `vocab_size` as words; a rate needs no such word beside its per cent."""
    words = key.removesuffix("_rate").replace("_", " ")
    return escaped(words[:1].upper() + words[1:])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready HTML cells; the first column names the rows."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def fact_list(values: Mapping[str, Any]) -> str:
    """Names and values, one a line; a nested one is named by all its keys."""
    pairs = [(row_name(key), written(key, value)) for key, value in _flat(values).items()]
    return f'<dl class="facts">{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)}</dl>'


def written(name: str, value: Any) -> str:
    """A value as text of the page, rates in per cent."""
    is_rate = name.endswith("_rate") and isinstance(value, int | float)
    return escaped(f"{100 * value:.4g} %" if is_rate else figure(value))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key} "))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
