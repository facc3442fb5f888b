"""Parts merged in any number and order are compared with `prepare`, which reads the whole text in one process."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.data import merge as module
from acorn.data.merge import merge
from acorn.data.part import prepare_part
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenShards, verify
from acorn.errors import DamageError, InputError, UsageError
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

WORDS = ["a", "small", "text", "of", "words", "that", "repeat,", "größer", "<unk>", "[UNK]", "日本"]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train(lambda: [" ".join(WORDS)] * 3, "bpe", 300)


@pytest.fixture(scope="module")
def word_piece() -> Tokenizer:
    return train(lambda: ["a small text of words"] * 3, "wordpiece", 100)


def content_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}


def merged(
    data: DataConfig, tokenizer: Tokenizer, folder: Path, parts: int, piece_bytes: int | None, order: int = 0
) -> TokenShards:
    """The text in `parts` parts, merged in a random order."""
    folders = [folder / f"part-{number}" for number in range(1, parts + 1)]
    for number, out in enumerate(folders, start=1):
        prepare_part(TextSplits.open(data), tokenizer, out, number, parts, piece_bytes=piece_bytes)
    random.Random(order).shuffle(folders)
    return merge(folders, folder / "merged")


def sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 5)))


def write_corpus(folder: Path, seed: int) -> None:
    """Files of every form, with repeats, empty and bad rows, byte order marks and CRLF."""
    draw = random.Random(seed)
    rows = [sentence(draw) for _ in range(60)]
    lines = [json.dumps({"text": draw.choice([*rows, "", "\ud800", "\r\n x\0"])}) for _ in range(80)]
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[40:] + lines[:9]).encode(), mtime=0))
    (folder / "c.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(draw.choices(rows, k=200)).encode() + b"\n\xff bad\n")
    (folder / "d.txt").write_bytes(b"")
    (folder / "e.jsonl").write_bytes(b"not JSON\n" + lines[0].encode() + b"\n \n")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 9),
    parts=st.integers(1, 5),
    piece_bytes=st.sampled_from([50, 333, 2000, 10**6]),
    document=st.sampled_from(["auto", "line", "block"]),
    dedup=st.booleans(),
    errors=st.sampled_from(["skip", "replace"]),
    clean=st.sampled_from(["none", "wikitext"]),
    held_out=st.sampled_from(["", "warn", "drop"]),
    lossless=st.booleans(),
)
def test_parts_in_any_number_and_order_give_the_bytes_of_prepare(
    seed: int,
    parts: int,
    piece_bytes: int,
    document: Any,
    dedup: bool,
    errors: Any,
    clean: Any,
    held_out: str,
    lossless: bool,
    bpe: Tokenizer,
    word_piece: Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    tokenizer = bpe if lossless else word_piece
    write_corpus(folder / "text", seed)
    if errors == "replace":  # which does not repair rows without text
        (folder / "text" / "e.jsonl").unlink()
    names = sorted((folder / "text").glob("*.jsonl*" if document == "auto" else "*.txt"))
    (folder / "held-out.txt").write_text("\n".join(WORDS * 2 + [sentence(random.Random(seed))]), "utf-8")
    data = DataConfig(
        source=tuple(map(str, names)),
        valid_source=(str(folder / "held-out.txt"),) if held_out and document == "line" else (),
        document=document,
        dedup=dedup,
        errors=errors,
        clean=clean,
        overlap=held_out or "warn",  # type: ignore[arg-type]
        valid_fraction=0.4,
        shard_tokens=1024,
    )
    try:
        whole = prepare(TextSplits.open(data), tokenizer, folder / "whole", shard_tokens=data.shard_tokens)
    except InputError:  # such as one side of the split without a document
        with pytest.raises(InputError):
            merged(data, tokenizer, folder, parts, piece_bytes)
        return
    found = merged(data, tokenizer, folder, parts, piece_bytes, order=seed)
    assert found.manifest == whole.manifest
    assert content_of(found.folder) == content_of(whole.folder)
    assert verify(found.folder) == []
    shutil.rmtree(folder)


def test_blocks_of_a_large_file_are_those_of_prepare(bpe: Tokenizer, tmp_path: Path) -> None:
    draw = random.Random(3)
    text = "".join(sentence(draw) + draw.choice([" ", "\n", "\n\n"]) for _ in range(60_000))
    (tmp_path / "big.txt").write_text(text, "utf-8")
    data = DataConfig(source=(str(tmp_path / "big.txt"),), document="block")
    assert (tmp_path / "big.txt").stat().st_size > 1 << 20  # blocks of 16 KiB
    whole = prepare(TextSplits.open(data), bpe, tmp_path / "whole", shard_tokens=data.shard_tokens)
    found = merged(data, bpe, tmp_path, 3, 100_000)
    assert content_of(found.folder) == content_of(whole.folder)


def test_the_tokenizer_is_measured_on_the_same_documents_as_in_prepare(
    word_piece: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acorn.data.prepare.MEASURED_DOCUMENTS", 7)
    monkeypatch.setattr("acorn.data.part.TO_MEASURE", 14)
    monkeypatch.setattr(module, "MEASURED_DOCUMENTS", 7)
    draw = random.Random(1)
    lines = [f"größer {sentence(draw)} {draw.randint(0, 30)}" for _ in range(300)]
    (tmp_path / "a.txt").write_text("\n".join(lines * 2), "utf-8")
    data = DataConfig(source=(str(tmp_path / "a.txt"),), document="line", valid_fraction=0.1)
    whole = prepare(TextSplits.open(data), word_piece, tmp_path / "whole", shard_tokens=data.shard_tokens)
    found = merged(data, word_piece, tmp_path, 4, 200)
    assert 0 < whole.manifest["tokenizer_report"]["valid"]["round_trip_rate"] < 1
    assert found.manifest["tokenizer_report"] == whole.manifest["tokenizer_report"]


@pytest.fixture
def three_parts(bpe: Tokenizer, tmp_path: Path) -> list[Path]:
    (tmp_path / "text.txt").write_text("\n".join(f"line {n}" for n in range(90)), "utf-8")
    data = DataConfig(source=(str(tmp_path / "text.txt"),), document="line")
    folders = [tmp_path / f"p{number}" for number in (1, 2, 3)]
    for number, out in enumerate(folders, start=1):
        prepare_part(TextSplits.open(data), bpe, out, number, 3, piece_bytes=100)
    return folders


def refused(folders: list[Path]) -> str:
    """The message of the refusal; nothing is written."""
    out = folders[0].parent / "out"
    with pytest.raises(InputError) as error:
        merge(folders, out)
    assert not out.exists()
    assert not out.with_name("out.new").exists()
    return f"{error.value.what} {error.value.where}"


def test_a_missing_and_a_doubled_part_are_named(three_parts: list[Path], tmp_path: Path) -> None:
    assert "1 part of 3 is missing: 2" in refused([three_parts[0], three_parts[2]])
    shutil.copytree(three_parts[1], tmp_path / "copy")
    message = refused([*three_parts, tmp_path / "copy"])
    assert "Part 2 of 3 is named twice" in message
    assert "copy" in message


def test_parts_of_another_text_tokenizer_or_setting_are_named(
    three_parts: list[Path], word_piece: Tokenizer, bpe: Tokenizer, tmp_path: Path
) -> None:
    def with_other(name: str, tokenizer: Tokenizer = bpe, **changed: Any) -> str:
        data = DataConfig(source=(str(tmp_path / "text.txt"),), document="line").model_copy(update=changed)
        prepare_part(TextSplits.open(data), tokenizer, tmp_path / name, 2, 3, piece_bytes=100)
        message = refused([three_parts[0], tmp_path / name, three_parts[2]])
        assert name in message
        return message

    assert "tokenizers differ" in with_other("other-tokenizer", word_piece)
    assert "data.dedup is False and True" in with_other("other-setting", dedup=False)
    (tmp_path / "text.txt").write_text("\n".join(f"LINE {n}" for n in range(90)), "utf-8")  # the same size
    assert "text.txt has other content" in with_other("other-text")


def test_an_unfinished_and_a_foreign_folder_are_named(three_parts: list[Path], tmp_path: Path) -> None:
    shutil.copytree(three_parts[1], tmp_path / "half.new")
    assert "This part is not complete" in refused([three_parts[0], tmp_path / "half", three_parts[2]])
    assert "There is no part" in refused([three_parts[0], tmp_path, three_parts[2]])


def test_a_damaged_part_is_named_before_anything_is_merged(three_parts: list[Path], tmp_path: Path) -> None:
    file = next(three_parts[1].glob("*.tokens"))
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamageError, match=file.name):
        merge(three_parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_is_not_taken_for_token_shards(three_parts: list[Path]) -> None:
    with pytest.raises(InputError, match="part 1 of 3"):
        TokenShards.open(three_parts[0])


def test_an_output_that_exists_is_refused(three_parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        merge(three_parts, tmp_path / "out")


def test_a_text_that_cannot_be_split_is_refused(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one\n" * 30, "utf-8")
    data = DataConfig(source=(str(tmp_path / "text.txt"),), document="line")
    with pytest.raises(InputError, match="repeats one document"):
        merged(data, bpe, tmp_path, 2, 50)


def test_overlap_can_fail(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one\ntwo\n", "utf-8")
    (tmp_path / "valid.txt").write_text("two\nthree\n", "utf-8")
    data = DataConfig(
        source=(str(tmp_path / "text.txt"),),
        valid_source=(str(tmp_path / "valid.txt"),),
        document="line",
        overlap="fail",
    )
    with pytest.raises(InputError, match="1 of 2 distinct valid documents"):
        merged(data, bpe, tmp_path, 2, 4)
