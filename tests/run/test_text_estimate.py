"""The size of a long text, estimated from its first part, compared with the whole text."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from acorn.config import Config
from acorn.config_files import load_config
from acorn.data.prepare import count_tokens
from acorn.errors import InputError
from acorn.progress import QUIET
from acorn.run import text_estimate
from acorn.run.text_estimate import estimate_text
from acorn.run_folder import RunFolder
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

PART = 2 << 20


@pytest.fixture(autouse=True)
def short_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_estimate, "FIRST_PART_BYTES", PART)


@pytest.fixture(scope="module")
def text() -> str:
    """About 5 MB."""
    draw = random.Random(0)
    words = [
        "the",
        "cat",
        "dog",
        "bird",
        "saw",
        "ate",
        "found",
        "a",
        "small",
        "red",
        "old",
        "house",
        "tree",
        "and",
        "then",
        "it",
        "slept",
        "again",
    ]
    return "\n".join(" ".join(draw.choices(words, k=1200)) + ".\n" for _ in range(1000))


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps({"text": row, "label": 1}) + "\n" for row in text.split("\n\n")))
    elif name.endswith(".xz"):
        path.write_bytes(lzma.compress(text.encode(), preset=0))
    else:
        path.write_text(text)
    return path


def config_of(path: Path, *more: str) -> Config:
    return load_config("small", [f"data.source={path}", *more])


@pytest.fixture(scope="module")
def tokenizer(text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train(lambda: [text[:50_000]], "bpe", 300).save(path)
    return path


@pytest.mark.parametrize("name", ["my.txt", "my.jsonl", "my.txt.xz"])
def test_figures_scaled_up_from_the_first_part(text: str, tokenizer: Path, tmp_path: Path, name: str) -> None:
    config = config_of(write(tmp_path, name, text), f"tokenizer.path={tokenizer}")
    found = estimate_text(config, RunFolder(Path("runs/x")), None, QUIET)
    documents = list(TextSplits.open(config.data).documents("train"))
    assert found.known == "part"
    assert found.train_bytes == pytest.approx(sum(document.n_bytes for document in documents), rel=0.1)
    assert found.train_tokens is not None
    last = count_tokens(documents[-20:], Tokenizer.from_file(tokenizer))  # beyond the first part, but like it
    assert found.train_tokens / found.train_bytes == pytest.approx(last.tokens / last.bytes, rel=0.05)


def test_only_the_first_part_is_read(
    text: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a text that consists of repeats, of which almost nothing is kept."""
    read = []
    real = TextSplits.documents

    def documents(self: TextSplits, split: str, task: str = "") -> Iterator[object]:
        for document in real(self, split, task):
            read.append(document.n_bytes)
            yield document

    monkeypatch.setattr(TextSplits, "documents", documents)
    estimate_text(
        config_of(write(tmp_path, "my.txt", text), f"tokenizer.path={tokenizer}"),
        RunFolder(Path("runs/x")),
        None,
        QUIET,
    )
    assert PART <= sum(read) < 2 * PART
    rows = b'{"text": "again and again"}\n{"text": "and again"}\n' * 80_000
    (tmp_path / "repeats.jsonl").write_bytes(rows + b"\xff\n")  # is not found
    assert estimate_text(config_of(tmp_path / "repeats.jsonl"), RunFolder(Path("runs/x")), None, QUIET).known == "part"


def test_faults_after_the_first_part_are_not_found(text: str, tokenizer: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "my.txt", text)
    path.write_bytes(path.read_bytes() + b"\xff")
    config = config_of(path, f"tokenizer.path={tokenizer}")
    assert estimate_text(config, RunFolder(Path("runs/x")), None, QUIET).known == "part"
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(InputError, match="not UTF-8"):
        estimate_text(config, RunFolder(Path("runs/x")), None, QUIET)


def test_the_vocabulary_size_of_a_longer_text_is_the_requested_one(text: str, tmp_path: Path) -> None:
    """The first part may be too small for it, but that says nothing about the whole text."""
    told: list[str] = []

    class Told(type(QUIET)):  # type: ignore[misc]
        def note(self, text: str) -> None:
            told.append(text)

    found = estimate_text(
        config_of(write(tmp_path, "my.txt", text), "tokenizer.vocab_size=5000"), RunFolder(Path("runs/x")), None, Told()
    )
    assert found.vocab_size == 5000
    assert told == []
