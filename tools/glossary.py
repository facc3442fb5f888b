"""Writes docs/glossary.md from src/acorn/report/glossary.toml. `--check` only checks that it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from acorn.report.glossary import glossary

PAGE = Path(__file__).resolve().parent.parent / "docs" / "glossary.md"

HEAD = """# Glossary

<!-- Made by tools/glossary.py from src/acorn/report/glossary.toml. -->

The words of the docs and of a run's report, as acorn uses them. `acorn config KEY` explains a setting.
"""


def page() -> str:
    """The page as text, with a heading for each term as a link target."""
    return "\n".join([HEAD, *(f"## {term}\n\n{meaning}\n" for term, meaning in glossary().items())])


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
