"""A tokenizer trained on a few lines."""

from __future__ import annotations

import pytest
from small_models import LINES

from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)
