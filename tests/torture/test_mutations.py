"""A mutation that no longer changes anything would test nothing. (`make torture` runs the tests against each.)"""

from __future__ import annotations

from pathlib import Path

import pytest

import acorn
from torture.mutations import MUTATIONS


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_to_be_taken_out_is_there(name: str) -> None:
    file, text, instead = MUTATIONS[name]
    source = (Path(acorn.__file__).parent / file).read_text("utf-8")
    assert text in source
    assert source.replace(text, instead) != source
