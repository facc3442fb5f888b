"""Cleaning of document text, and how WikiText is known by its looks.

Cleaning changes what a model sees, never what a document is: splitting, deduplication and the counts of
bytes and words look at the original.
"""

from __future__ import annotations

import re
from typing import Literal

# WikiText writes `17 @-@ year`, `2 @.@ 5` and `1 @,@ 000` for 17-year, 2.5 and 1,000, and `<unk>` for rare words.
_WIKITEXT_REPLACEMENTS = (
    ("@-@", ""),
    ("@.@", "."),
    ("@,@", ","),
    ("<unk>", "[UNK]"),
    ("\n", ""),
    ("'", ""),
    ("\\", ""),
)
_WIKITEXT_MARKS = (b" <unk> ", b" @-@ ", b" @,@ ", b" @.@ ")
_WIKITEXT_HEADING = re.compile(rb"^ ?= [^=\n]+ = ?\r?$", re.MULTILINE)


def clean(text: str, how: Literal["none", "wikitext"]) -> str:
    """`text` cleaned: `none` leaves it as it is, `wikitext` undoes WikiText's artefacts as `original` does."""
    if how == "wikitext":
        for artefact, replacement in _WIKITEXT_REPLACEMENTS:
            text = text.replace(artefact, replacement)
    return text


def looks_like_wikitext(head: bytes) -> bool:
    """Whether the beginning of a text is WikiText: an article's heading (` = Title = `) and one of its marks."""
    return any(mark in head for mark in _WIKITEXT_MARKS) and _WIKITEXT_HEADING.search(head) is not None
