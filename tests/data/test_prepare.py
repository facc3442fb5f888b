from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from acorn import files
from acorn.config import DataConfig
from acorn.data import prepare as module
from acorn.data.prepare import prepare
from acorn.data.token_shards import ShardWriter, verify
from acorn.errors import InputError, ResourceError, UsageError
from acorn.progress import Quiet
from acorn.text.corpus import Document
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TRAIN = ["The first text .", "<|endoftext|> is text here, <unk> an entry", "", "Việt \n 日本\n"]
VALID = ["One more text"]
SRC = Path(__file__).parents[2] / "src"

# A process that ends between two shards, without cleanup.
KILLED = """
import os
from pathlib import Path
from acorn.config import DataConfig
from acorn.data import prepare as module
from acorn.data.token_shards import ShardWriter
from acorn.text.corpus import Document
from acorn.tokenizer.tokenizer import Tokenizer

class Texts:
    names, counts, overlap, data = ("train",), {{}}, {{}}, DataConfig()
    def documents(self, split, task):
        yield Document("some text that fills more than one shard", 40, 9, "x")

append = ShardWriter.append
def append_and_die(self, ids):
    append(self, ids)
    os._exit(9)
ShardWriter.append = append_and_die
module.prepare(Texts(), Tokenizer.from_json({tokenizer!r}), Path({out!r}), shard_tokens=7)
"""


@dataclass
class Texts:
    """Splits that are lists of strings."""

    texts: dict[str, list[str]]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    overlap: dict[str, float] = field(default_factory=dict)
    task: str = ""
    data: DataConfig = field(default_factory=lambda: DataConfig(clean="wikitext"))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def documents(self, split: str, task: str) -> Iterator[Document]:
        self.task = task
        for number, text in enumerate(self.texts[split]):
            yield Document(text, len(text.encode()) + 100, len(text.split()) + 1, f"{split}:{number}")


class Notes(Quiet):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_lossy_tokenizer_gives_a_warning_before_encoding(kind: Literal["wordpiece", "bpe"], tmp_path: Path) -> None:
    texts = {"train": ["Tiếng Việt có nhiều dấu"] * 40, "valid": ["Tiếng Việt"]}
    tokenizer = train(lambda: iter(texts["train"]), kind, 400)
    notes = Notes()
    prepare(Texts(texts), tokenizer, tmp_path / "out", progress=notes)  # type: ignore[arg-type]
    warnings = [number for number, text in enumerate(notes.texts) if "loses part of the text" in text]
    assert warnings == ([0] if kind == "wordpiece" else [])


def splits_of(**texts: list[str]) -> Any:
    return Texts(texts)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return train(lambda: TRAIN * 3, "bpe", 300, entries=["<unk>"])


@pytest.fixture(scope="module")
def word_piece() -> Tokenizer:
    return train(lambda: TRAIN * 3, "wordpiece", 200)


def content_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_decoding_between_separators_gives_the_documents(byte_level: Tokenizer, tmp_path: Path) -> None:
    shards = prepare(splits_of(train=TRAIN, valid=VALID), byte_level, tmp_path / "out", shard_tokens=5)
    for split, texts in (("train", TRAIN), ("valid", VALID)):
        ids = shards.tokens(split)[:].astype(np.int64)
        places = np.flatnonzero(ids == byte_level.separator_id)
        assert places[0] == 0
        assert places[-1] == len(ids) - 1
        documents = [ids[a + 1 : b].tolist() for a, b in pairwise(places)]
        assert [byte_level.decode(document, skip_special_tokens=False) for document in documents] == texts
    assert verify(tmp_path / "out") == []


def test_counts_are_those_of_the_original_text(byte_level: Tokenizer, tmp_path: Path) -> None:
    shards = prepare(splits_of(train=TRAIN, valid=VALID), byte_level, tmp_path / "out", shard_tokens=5)
    count = shards.count("train")
    assert count.documents == 4
    assert count.bytes == sum(len(text.encode()) + 100 for text in TRAIN)
    assert count.words == sum(len(text.split()) + 1 for text in TRAIN)
    assert count.tokens == len(shards.tokens("train")) == 5 + sum(map(len, byte_level.encode_documents(TRAIN)))
    sizes = [shard["tokens"] for shard in shards.manifest["splits"]["train"]["shards"]]
    assert set(sizes[:-1]) == {5}
    assert sum(sizes) == count.tokens


def test_unknown_tokens_are_counted(word_piece: Tokenizer, tmp_path: Path) -> None:
    shards = prepare(splits_of(train=["The [UNK] text , ~"]), word_piece, tmp_path / "out", shard_tokens=100)
    assert shards.count("train").unknown_tokens == 2
    assert shards.tokens("train")[:].tolist().count(word_piece.separator_id) == 2


def test_the_folder_contains_the_tokenizer_and_facts_about_the_text(byte_level: Tokenizer, tmp_path: Path) -> None:
    splits = Texts({"train": TRAIN}, {"train": {"bytes": 500}}, {"valid": 0.25})
    shards = prepare(splits, byte_level, tmp_path / "out", shard_tokens=100)  # type: ignore[arg-type]
    assert shards.tokenizer().fingerprint == byte_level.fingerprint == shards.manifest["tokenizer"]["fingerprint"]
    assert shards.manifest["tokenizer"]["separator_id"] == byte_level.separator_id
    assert shards.manifest["text"] == {
        "clean": "wikitext",
        "counts": {"train": {"bytes": 500}},
        "overlap": {"valid": 0.25},
    }
    assert shards.manifest["dtype"] == "uint16"
    assert splits.task == "encoding train"


def test_the_text_digest_does_not_depend_on_the_tokenizer(
    byte_level: Tokenizer, word_piece: Tokenizer, tmp_path: Path
) -> None:
    def digests(name: str, tokenizer: Tokenizer, valid: list[str]) -> tuple[str, str]:
        shards = prepare(Texts({"train": TRAIN, "valid": valid}), tokenizer, tmp_path / name)
        train, valid_ = (shards.manifest["splits"][split]["text_sha256"] for split in ("train", "valid"))
        return train, valid_

    bpe = digests("bpe", byte_level, ["One text", "and more"])
    assert digests("wordpiece", word_piece, ["One text", "and more"]) == bpe
    train, valid = digests("other", byte_level, ["One text and", " more"])  # the same letters, cut elsewhere
    assert train == bpe[0]
    assert valid != bpe[1]


@pytest.mark.parametrize("batch", [1, 20, 1 << 22])
def test_the_bytes_do_not_depend_on_the_batches(
    byte_level: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Faults 19 and 20."""
    splits = splits_of(train=TRAIN * 5, valid=VALID)
    prepare(splits, byte_level, tmp_path / "one", shard_tokens=7)
    monkeypatch.setattr(module, "BATCH_CHARACTERS", batch)
    prepare(splits, byte_level, tmp_path / "two", shard_tokens=7)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_the_remains_of_a_killed_process_are_replaced(byte_level: Tokenizer, tmp_path: Path) -> None:
    """Fault 20."""
    prepare(splits_of(train=TRAIN), byte_level, tmp_path / "whole", shard_tokens=7)
    script = KILLED.format(tokenizer=byte_level.to_json(), out=str(tmp_path / "out"))
    assert subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(SRC)}).returncode == 9
    assert (tmp_path / "out.new" / "train-00001.bin").exists()
    assert not (tmp_path / "out").exists()
    prepare(splits_of(train=TRAIN), byte_level, tmp_path / "out", shard_tokens=7)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
    assert not (tmp_path / "out.new").exists()


def test_an_existing_folder_is_refused_and_not_changed(byte_level: Tokenizer, tmp_path: Path) -> None:
    """Fault 19."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        prepare(splits_of(train=TRAIN), byte_level, tmp_path / "out", shard_tokens=7)
    assert content_of(tmp_path / "out") == {"mine.txt": b"mine"}


def test_a_disk_that_is_too_small_is_refused_before_writing(
    byte_level: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17: the text has ten times the bytes of the first batch, so ten times its tokens of 2 bytes."""
    monkeypatch.setattr(files, "free_bytes", lambda path: 50)
    tokens = 1 + len(byte_level.encode_documents(VALID)[0])
    n_bytes = len(VALID[0].encode()) + 100
    splits = Texts({"train": VALID}, {"train": {"bytes": 10 * n_bytes}})
    with pytest.raises(ResourceError, match=f"about {20 * tokens} bytes are needed, 50 are free"):
        prepare(splits, byte_level, tmp_path / "out", shard_tokens=7)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_after_the_disk_filled_up(
    byte_level: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17."""
    append = ShardWriter.append

    def full(self: ShardWriter, ids: Any) -> None:
        append(self, ids)
        if len(self.shards) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "append", full)
    with pytest.raises(ResourceError, match="disk is full"):
        prepare(splits_of(train=TRAIN * 4), byte_level, tmp_path / "out", shard_tokens=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", ["text", "encoder"])
def test_an_error_in_any_thread_is_raised_and_nothing_is_left(
    byte_level: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Fault 21: whichever thread fails, the caller gets the error, and nothing waits forever."""

    def broken_text(split: str, task: str) -> Iterator[Document]:
        yield from Texts({"train": TRAIN}).documents(split, task)
        raise InputError("bad byte", where="file.txt")

    def broken_encoder(texts: list[str]) -> Any:
        raise InputError("bad byte", where="file.txt")

    monkeypatch.setattr(module, "BATCH_CHARACTERS", 1)
    splits, tokenizer = splits_of(train=TRAIN), Tokenizer.from_json(byte_level.to_json())
    if failing == "text":
        monkeypatch.setattr(splits, "documents", broken_text)
    else:
        monkeypatch.setattr(tokenizer, "encode_documents", broken_encoder)
    with pytest.raises(InputError, match="bad byte"):
        prepare(splits, tokenizer, tmp_path / "out", shard_tokens=5)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_encodes_text_as_separators_is_refused(
    byte_level: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 13."""
    tokenizer = Tokenizer.from_json(byte_level.to_json())
    monkeypatch.setattr(tokenizer, "encode_documents", lambda texts: [[tokenizer.separator_id] for _ in texts])
    with pytest.raises(InputError, match="separator") as caught:
        prepare(splits_of(train=TRAIN), tokenizer, tmp_path / "out", shard_tokens=5)
    assert "train:0" in caught.value.where


def test_an_empty_split_is_refused(byte_level: Tokenizer, tmp_path: Path) -> None:
    """Fault 1."""
    with pytest.raises(InputError, match="The valid text is empty"):
        prepare(splits_of(train=TRAIN, valid=[]), byte_level, tmp_path / "out", shard_tokens=5)
    assert list(tmp_path.iterdir()) == []


def test_from_files_to_shards(byte_level: Tokenizer, tmp_path: Path) -> None:
    """With the real reader: two rows each, counted as in the files."""
    for split, rows in (("train", ["a text", "b text\nmore"]), ("valid", ["c text", "d text"])):
        lines = [json.dumps({"text": row}) for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    data = DataConfig(source=(str(tmp_path / "train.jsonl"),), valid_source=(str(tmp_path / "valid.jsonl"),))
    shards = prepare(TextSplits.open(data), byte_level, tmp_path / "out", shard_tokens=100)
    count = shards.count("train")
    assert (count.documents, count.bytes, count.words) == (2, 17, 8)
    assert byte_level.decode(shards.tokens("train")[:].tolist()) == "a textb text\nmore"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["text"]["counts"]["valid"]["documents"] == 2


def test_the_unknown_rate_covers_whole_splits(
    word_piece: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the first documents of a split, and without unknown tokens that the text itself contains."""
    monkeypatch.setattr(module, "MEASURED_DOCUMENTS", 1)
    valid = ["text", "ж ж", "[UNK]"]
    shards = prepare(splits_of(train=["text", "ж"], valid=valid), word_piece, tmp_path / "shards")
    text = len(word_piece.encode_documents(["text"])[0])
    assert shards.unknown_rate("valid") == pytest.approx(2 / (text + 3))
    assert shards.unknown_rate("train") == pytest.approx(1 / (text + 1))
    assert shards.unknown_rate("test") is None
