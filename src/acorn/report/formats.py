"""Numbers, durations, sizes and foreign text as a person reads them."""

from __future__ import annotations

import math
import re
from typing import Any

from acorn.counting import counted

# Control characters but tab and line end, lone surrogates, and the marks that reverse the writing direction of what
# follows: in sampled text they would move the cursor, break the encoding or turn a line around.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""`text` with every character that could upset a terminal or a page shown as its escape, such as `\x1b`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def duration(seconds: float) -> str:
    """Two units at most: `45 s`, `3 min 12 s`, `2 h 05 min`, `3 d 04 h`. Seconds under 10 keep one decimal."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, length, part, part_length in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length} {unit} {whole % length // part_length:02d} {part}"
    return f"{whole} s"


def unbroken(text: str) -> str:
    """`text` for a page, on which no number is parted from its unit at the end of a line: `1 min 30 s`."""
    return re.sub("(?<=[0-9]) (?=[a-zA-Z%])", "\N{NO-BREAK SPACE}", text)


def short(number: float) -> str:
    """Three significant digits with a letter: `840`, `12.3K`, `48M`, `1.2B`."""
    for letter, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(number) >= 0.9995 * size:
            return f"{float(f'{number / size:.3g}'):g}{letter}"
    return f"{float(f'{number:.3g}'):g}"


def amount(number: float, unit: str) -> str:
    """`12.3 MB` for bytes (decimal, as disks are sold), else the number with its unit: `1,234 documents`, `1 run`.

    Args:
        unit: in the plural.
    """
    if unit != "bytes":
        return counted(round(number), _one_of(unit), unit)
    for name, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {name}"
    return counted(round(number), "byte")


def rate(per_second: float, unit: str) -> str:
    """`3.2 MB/s` for bytes, else a figure of three digits: `12.3K tokens/s`; of what is slow, `30 s per run`."""
    if unit != "bytes" and 0 < per_second < 1:
        return f"{duration(1 / per_second)} per {_one_of(unit)}"
    return f"{amount(per_second, unit) if unit == 'bytes' else f'{short(per_second)} {unit}'}/s"


def part_of(done: float, total: float, unit: str) -> str:
    """`4.2 MB of 12.3 MB` for bytes, else the unit once: `1 of 6 runs`."""
    number = amount(done, unit) if unit == "bytes" else f"{done:,.0f}"
    return f"{number} of {amount(total, unit)}"


def _one_of(unit: str) -> str:
    return {"entries": "entry", "batches": "batch"}.get(unit, unit.removesuffix("s"))


def figure(value: Any) -> str:
    """Any value of a config, manifest or evaluation: digits grouped, floats at up to five digits, `—` for none."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(figure(item) for item in value) or "—"
    return str(value) or "—"


def frozen_parts(frozen: int, blocks: int) -> str:
    """What `finetune.freeze` keeps as it is, within a sentence; empty: nothing.

    Args:
        blocks: of the network.
    """
    if not frozen:
        return ""
    if frozen == blocks:
        return "everything but the head"
    return f"the embeddings and the first {frozen:,} of {counted(blocks, 'block')}"
