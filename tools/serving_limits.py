"""Writes the table of limits into docs/serving.md from src/acorn/serve/limits.py. `--check` only checks it."""

from __future__ import annotations

import sys
from pathlib import Path

from acorn.serve.limits import table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "serving.md"

BEGIN, END = "<!-- Limits, made by tools/serving_limits.py. -->", "<!-- End of the limits. -->"


def limits() -> str:
    """The table as Markdown."""
    rows = ["| limit | value | beyond it |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| {row.what} | {row.value} | {row.beyond} |" for row in table())]) + "\n"


def page() -> str:
    """The page with the table as it has to be."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{limits()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
