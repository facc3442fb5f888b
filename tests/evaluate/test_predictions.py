from __future__ import annotations

import pytest

from acorn.evaluate.predictions import some_of


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("a", '"a"'),
        ("ab", '"a" and "b"'),
        ("abc", '"a", "b" and "c"'),
        ("abcdefg", '"a", "b", "c", "d", "e" and 2 more'),
    ],
)
def test_names_in_a_sentence(names: str, told: str) -> None:
    assert some_of(list(names)) == told
