from __future__ import annotations

from pathlib import Path

import pytest

from acorn.errors import UsageError
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


def test_saving_replaces_a_tokenizer_and_nothing_else(tmp_path: Path) -> None:
    bpe = train(lambda: ["some text"], "bpe", 300)
    text = tmp_path / "mine.txt"
    text.write_text("my only copy")
    with pytest.raises(UsageError, match="not a tokenizer"):
        bpe.save(text)
    assert text.read_text() == "my only copy"
    with pytest.raises(UsageError, match="a folder"):
        bpe.save(tmp_path)
    out = tmp_path / "new" / "tokenizer.json"
    for _ in range(2):
        bpe.save(out)
    assert Tokenizer.from_file(out).fingerprint == bpe.fingerprint
