"""Pieces of HTML that all parts of the report use."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from acorn.report.formats import figure, printable

Content = TypeVar("Content")

SPLITS = ("train", "valid", "test")
_FIGURE = re.compile(r"[-+]?[0-9][0-9,.]*(e[-+][0-9]+)?( ?%| ± [0-9.]+)?")  # a cell that must stay on one line


def escaped(text: str) -> str:
    """`text` as content of a page or of a quoted attribute. Samples, names, paths and configs may contain markup."""
    return html.escape(printable(text))


def absent(sentence: str) -> str:
    """One sentence that says what is missing."""
    return f'<p class="absent">{escaped(sentence)}</p>'


def with_code(description: str) -> str:
    """Escaped text in which `words between backticks` are set as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escaped(description))


def row_name(key: str) -> str:
    """A key such as `vocab_size` as words, without the `_rate` of a percentage."""
    words = key.removesuffix("_rate").replace("_", " ")
    return escaped(words[:1].upper() + words[1:])


def noted(label: str, note: str, kind: str = "") -> str:
    """A ready label or cell with a note below it in the same cell; as it is without one.

    Args:
        note: text.
        kind: "warning" for one that must be seen.
    """
    classes = f"note {kind}" if kind else "note"
    return f'{label}<span class="{classes}">{escaped(note)}</span>' if note else label


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of ready HTML cells; the first column names the rows."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(map(_cell, row[1:]))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(content: str) -> str:
    return f'<td class="number">{content}</td>' if _FIGURE.fullmatch(content) else f"<td>{content}</td>"


def fact_list(values: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> str:
    """Names and values, one a line.

    Args:
        labels: what stands for a name; without one it is written as words.
    """
    pairs = [((labels or {}).get(key) or row_name(key), _lines(key, value)) for key, value in values.items()]
    return f'<dl class="facts">{"".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)}</dl>'


def written(name: str, value: Any) -> str:
    """A value as text of the page, rates in per cent."""
    is_rate = name.endswith("_rate") and isinstance(value, int | float)
    return escaped(f"{100 * value:.4g} %" if is_rate else figure(value))


def in_order(splits: Mapping[str, Content]) -> dict[str, Content]:
    """JSON files are sorted by name; readers expect train, valid, test."""
    return {name: splits[name] for name in sorted(splits, key=lambda name: (*SPLITS, name).index(name))}


def mapping_in(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside another; empty where there is none, or something else."""
    found = outer.get(name)
    return found if isinstance(found, Mapping) else {}


def _lines(key: str, value: Any) -> str:
    """A value as text of the page; of one that holds several, each on its own line, as its text may have commas."""
    if isinstance(value, Mapping):
        return escaped(", ".join(f"{name}: {figure(part)}" for name, part in _flat(value).items()) or figure(None))
    if isinstance(value, list | tuple) and len(value) > 1:
        return "<br>".join(escaped(figure(item)) for item in value)
    return written(key, value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key} "))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
