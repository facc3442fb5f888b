from __future__ import annotations

import pytest

from acorn.text.cleaning import clean, looks_like_wikitext


@pytest.mark.parametrize(
    ("original", "cleaned"),
    [
        (" Their 17th @-@ place finish \n", " Their 17th  place finish "),
        (" 2 @.@ 5 and 1 @,@ 000 \n", " 2 . 5 and 1 , 000 "),
        (" the <unk> season \n", " the [UNK] season "),
        (" the club 's \\ ground \n", " the club s  ground "),
    ],
)
def test_wikitext_artifacts_are_removed(original: str, cleaned: str) -> None:
    assert clean(original, "wikitext") == cleaned
    assert clean(original, "none") == original


@pytest.mark.parametrize(
    ("head", "is_wikitext"),
    [
        (b" \n = Robert <unk> = \n \n Robert <unk> is an actor .\n", True),
        (b"= Title =\n\nA 17th @-@ century house .\n", True),  # stripped rows
        (b" \r\n = Title = \r\n 1 @,@ 000 men \r\n", True),
        (b" The <unk> season was the 17th @-@ best .\n", False),  # marks, but no heading
        (b" = Title = \n \n An ordinary wiki page.\n", False),  # a heading, but no marks
        (b" = = Section = = \n a 17th @-@ century house\n", False),
        (b"", False),
    ],
)
def test_wikitext_is_detected_by_headings_and_marks(head: bytes, is_wikitext: bool) -> None:
    assert looks_like_wikitext(head) is is_wikitext
