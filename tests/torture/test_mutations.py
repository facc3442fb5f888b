"""The text that each mutation replaces exists in the source. (`make torture` runs the tests with each mutation.)"""

from __future__ import annotations

from pathlib import Path

import pytest

import acorn
from torture.mutations import MUTATIONS


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_apply(name: str) -> None:
    file, text, instead = MUTATIONS[name]
    source = (Path(acorn.__file__).parent / file).read_text("utf-8")
    assert text in source
    assert source.replace(text, instead) != source
