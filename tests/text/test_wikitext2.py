"""The bundled WikiText-2: its bytes, and the figures in its README and in the literature."""

from __future__ import annotations

import hashlib
import lzma
import re
from pathlib import Path

import pytest

import acorn.text.sources
from acorn.config import DataConfig
from acorn.text.splits import TextSplits

FOLDER = Path(acorn.text.sources.__file__).parent / "wikitext2"
SHA256 = {
    "train": "728c77e87e176af4730f9a80fc6008bcaff421a7202c1c048877c0eec3685f89",
    "valid": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    "test": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
}


@pytest.mark.parametrize("split", SHA256)
def test_the_files_match_the_digests_in_the_license_file(split: str) -> None:
    text = lzma.decompress((FOLDER / f"{split}.txt.xz").read_bytes())
    digest = hashlib.sha256(text).hexdigest()
    assert digest == SHA256[split]
    facts = (len(text), text.count(b"\n"), len(text.split()))
    row = f"| `{split}.txt` | " + " | ".join(f"{fact:,}" for fact in facts) + f" | `{digest}` |"
    assert row in (FOLDER / "LICENSE.md").read_text("utf-8")


# Non-empty rows of the official dataset; words: those of the literature's token counts (217,646 and 245,569 with one
# end-of-line a line), less the end-of-lines of the empty rows.
@pytest.mark.parametrize(
    ("split", "rows", "lines", "tokens"), [("valid", 2461, 3760, 217_646), ("test", 2891, 4358, 245_569)]
)
def test_every_row_of_the_held_out_text_is_a_document(split: str, rows: int, lines: int, tokens: int) -> None:
    splits = TextSplits.open(DataConfig(source=("bundled:wikitext-2",)))
    documents = list(splits.documents(split))
    assert len(documents) == rows
    assert sum(document.n_words for document in documents) == tokens - (lines - rows)
    text = lzma.decompress((FOLDER / f"{split}.txt.xz").read_bytes()).decode()
    assert "".join(document.text for document in documents) == re.sub(r"^ \n", "", text, flags=re.MULTILINE)
    assert sum(document.n_bytes for document in documents) == len(text.encode()) - 2 * (lines - rows)
    assert splits.counts[split]["dropped_empty"] == lines - rows


def test_training_rows_are_distinct_and_detected_as_wikitext() -> None:
    splits = TextSplits.open(DataConfig(source=("bundled:wikitext-2",)))
    assert splits.names == ("train", "valid", "test")
    assert splits.has_wikitext
    assert splits.entries("bpe") == ("<unk>",)
    texts = [document.text for document in splits.documents("train")]
    lines = lzma.decompress((FOLDER / "train.txt.xz").read_bytes()).decode().splitlines(keepends=True)
    assert texts == list(dict.fromkeys(line for line in lines if line.strip()))
    assert splits.counts["train"]["dropped_duplicates"] == sum(bool(line.strip()) for line in lines) - len(texts)
    held_out = {split: {document.text for document in splits.documents(split)} for split in ("valid", "test")}
    assert splits.overlap == {split: len(rows & set(texts)) / len(rows) for split, rows in held_out.items()}
