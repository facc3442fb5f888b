"""Cleaning of document text, and detection of WikiText.

Cleaning changes only what the model sees. Splitting, deduplication and the counts of bytes and words use the original
text.
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
    """`text` cleaned: `none` changes nothing, `wikitext` removes WikiText's artifacts, as in the preset `original`."""
    if how == "wikitext":
        for artifact, replacement in _WIKITEXT_REPLACEMENTS:
            text = text.replace(artifact, replacement)
    return text


def looks_like_wikitext(head: bytes) -> bool:
    """Whether the beginning of a text is WikiText: it has an article heading (` = Title = `) and one of the marks."""
    return any(mark in head for mark in _WIKITEXT_MARKS) and _WIKITEXT_HEADING.search(head) is not None
