from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.data.token_shards import FORMAT, ShardWriter, TokenSequence, TokenShards, dtype_for, verify
from acorn.errors import DamageError, InputError
from acorn.files import seal
from acorn.folders import new_folder

SEPARATOR = 7
TRAIN = [7, 1, 2, 3, 7, 4, 5, 7, 6, 7]  # three documents


def write_shards(folder: Path, splits: dict[str, list[int]], shard_tokens: int = 4, dtype: str = "uint16") -> Path:
    vocab_size = 8 if dtype == "uint16" else 2**32
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "dtype": dtype,
        "tokenizer": {
            "kind": "bpe",
            "vocab_size": vocab_size,
            "fingerprint": "f00d",
            "separator_id": SEPARATOR,
        },
        "splits": {},
    }
    with new_folder(folder, extra=manifest) as fresh:
        (fresh / "tokenizer.json").write_text("{}")
        for split, ids in splits.items():
            writer = ShardWriter(fresh, split, dtype, shard_tokens)
            writer.append(np.array(ids, np.uint32))
            manifest["splits"][split] = {
                "documents": max(0, ids.count(SEPARATOR) - 1),
                "tokens": len(ids),
                "bytes": 30,
                "words": 9,
                "unknown_tokens": 0,
                "shards": writer.shards,
            }
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", {"train": TRAIN, "valid": [7, 1, 7]})


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], TokenSequence]:
    """101 tokens in shards of 10."""
    ids = [int(n) for n in np.random.default_rng(0).integers(0, 60_000, 101)]
    shards = TokenShards.open(write_shards(tmp_path_factory.mktemp("long") / "shards", {"train": ids}, 10))
    return ids, shards.tokens("train")


def test_files_are_raw_little_endian_ids_and_full(folder: Path) -> None:
    assert (folder / "train-00000.bin").read_bytes() == bytes([7, 0, 1, 0, 2, 0, 3, 0])
    sizes = [(folder / f"train-0000{n}.bin").stat().st_size for n in range(3)]
    assert sizes == [8, 8, 4]
    assert not (folder / "train-00003.bin").exists()


def test_reading_gives_what_was_written(folder: Path) -> None:
    shards = TokenShards.open(folder, "f00d", check=True)
    tokens = shards.tokens("train")
    assert shards.splits == ("train", "valid")
    assert len(tokens) == len(TRAIN)
    assert tokens[:].tolist() == TRAIN
    assert tokens[:].dtype == np.uint16
    assert tokens.shard_starts.tolist() == [0, 4, 8]
    count = shards.count("train")
    assert (count.documents, count.tokens, count.bytes, count.words) == (3, 10, 30, 9)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_ids_take_16_bits_if_they_fit(vocab_size: int, dtype: str) -> None:
    assert dtype_for(vocab_size) == dtype


def test_32_bit_shards(tmp_path: Path) -> None:
    ids = [SEPARATOR, 70_000, 2**32 - 1, SEPARATOR]
    shards = TokenShards.open(write_shards(tmp_path / "wide", {"train": ids}, 3, "uint32"), check=True)
    assert shards.tokens("train")[:].tolist() == ids


def test_an_id_too_large_for_the_integer_type_is_refused(tmp_path: Path) -> None:
    """Fault 18."""
    writer = ShardWriter(tmp_path, "train", "uint16", 4)
    writer.append(np.array([65_535], np.uint32))
    with pytest.raises(InputError, match="65536 is too large for uint16"):
        writer.append(np.array([1, 65_536], np.uint32))
    assert (tmp_path / "train-00000.bin").stat().st_size == 2


@given(st.integers(-110, 110), st.integers(-110, 110))
def test_slices_equal_those_of_a_list(long: tuple[list[int], TokenSequence], start: int, stop: int) -> None:
    ids, tokens = long
    assert tokens[start:stop].tolist() == ids[start:stop]


def test_slices_with_another_step_are_refused(long: tuple[list[int], TokenSequence]) -> None:
    with pytest.raises(ValueError, match="step 1"):
        long[1][::2]


@given(st.lists(st.integers(0, 101), max_size=6), st.integers(1, 35))
def test_gathered_windows_equal_slices(long: tuple[list[int], TokenSequence], starts: list[int], length: int) -> None:
    """Also across one, two and three shard boundaries, in any order, with repeats."""
    ids, tokens = long
    starts = [start for start in starts if start + length <= len(ids)]
    windows = tokens.gather(np.array(starts, np.int64), length)
    assert windows.dtype == np.int64
    assert windows.shape == (len(starts), length)
    assert windows.tolist() == [ids[start : start + length] for start in starts]


@pytest.mark.parametrize("start", [-1, 100])
def test_windows_past_the_ends_are_refused(long: tuple[list[int], TokenSequence], start: int) -> None:
    with pytest.raises(IndexError):
        long[1].gather(np.array([0, start], np.int64), 2)


def test_a_flipped_bit_is_found(folder: Path) -> None:
    """Fault 22."""
    shard = folder / "train-00001.bin"
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DamageError, match=r"train-00001\.bin"):
        TokenShards.open(folder, check=True)
    assert len(verify(folder)) == 1


def test_an_added_shard_is_found(folder: Path) -> None:
    """Fault 22."""
    (folder / "train-00003.bin").write_bytes(b"\1\0")
    with pytest.raises(DamageError, match=r"train-00003\.bin: was added"):
        TokenShards.open(folder, check=True)


@pytest.mark.parametrize("check", [False, True])
def test_a_missing_or_short_shard_is_found_even_without_checksums(folder: Path, check: bool) -> None:
    """Fault 22."""
    shard = folder / "valid-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(DamageError, match=r"valid-00000\.bin: has 4 bytes, not 6"):
        TokenShards.open(folder, check=check)
    shard.unlink()
    with pytest.raises(DamageError, match=r"valid-00000\.bin: is missing"):
        TokenShards.open(folder, check=check)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("splits", "train", "tokens"), 9, "do not add up"),
        (("splits", "train", "documents"), 4, "has 4 separators; its documents need 5"),
        (("splits", "train", "shards", 0, "file"), "../train-00000.bin", "outside its folder"),
        (("splits", "train", "shards", 0, "tokens"), 0, "has 8 bytes"),
        (("splits", "train", "shards", 0, "tokens"), -1, "does not have the form"),
        (("splits", "train", "documents"), 1.0, "does not have the form"),
        (("tokenizer", "vocab_size"), 7, "contains the id 7, but the tokenizer has 7 entries"),
        (("splits", "train", "shards", 0, "tokens"), "many", "does not have the form"),
        (("splits", "train"), {}, "does not have the form"),
        (("dtype",), "int7", "does not have the form"),
    ],
)
def test_a_wrong_manifest_is_found(folder: Path, place: tuple[Any, ...], value: Any, fault: str) -> None:
    """Faults 22 and 63."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    inner = manifest
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(seal(manifest)))
    with pytest.raises(DamageError, match=fault):
        TokenShards.open(folder, check=True)


def test_shards_of_another_tokenizer_are_refused(folder: Path) -> None:
    """Fault 23."""
    with pytest.raises(InputError, match=r"f00d.*\bbeef"):
        TokenShards.open(folder, "beef")


@pytest.mark.parametrize("content", [None, '{"files": {}}', '{"format": "acorn-token-shards", "version": 2}', "[]"])
def test_other_folders_are_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError) as caught:
        TokenShards.open(tmp_path)
    assert str(tmp_path) in caught.value.where
