"""Documents become shards and shards become samples; no token is lost, duplicated or moved."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.config import DataConfig
from acorn.data import prepare as preparing
from acorn.data.batches import read_batch
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenSequence, TokenShards, verify
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

Folders = pytest.TempPathFactory


# --- sample order


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """A split in shards of any lengths, and the order of a run."""
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=8))
    n_tokens = sum(lengths)
    return {
        "lengths": [*lengths[:-1], lengths[-1] + 1],
        "block_size": draw(st.integers(1, min(n_tokens, 40))),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "rollbacks": draw(st.integers(0, 3)),
        "shuffle_group": draw(st.integers(0, 9)),
        "epoch": draw(st.integers(0, 10**6)),
    }


def order_of(layout: dict[str, Any]) -> SampleOrder:
    starts = np.concatenate([[0], np.cumsum(layout["lengths"])[:-1]])
    return SampleOrder(
        sum(layout["lengths"]),
        layout["block_size"],
        layout["seed"],
        layout["rollbacks"],
        tuple(starts.tolist()),
        layout["shuffle_group"],
    )


def sequence_of(layout: dict[str, Any], folder: Path) -> TokenSequence:
    """Shards in which every token's id is its position, so that a sample shows where it was read."""
    paths, place = [], 0
    for number, length in enumerate(layout["lengths"]):
        paths.append(folder / f"train-{number:05d}.bin")
        np.arange(place, place + length, dtype="<u2").tofile(paths[-1])
        place += length
    return TokenSequence(paths, np.dtype("<u2"))


@settings(max_examples=80)
@given(layout=layouts())
def test_an_epoch_contains_every_window_once_and_every_token_as_a_target(
    tmp_path_factory: Folders, layout: dict[str, Any]
) -> None:
    """The windows are consecutive from the phase on; only the last overlaps the first, by less than a block."""
    order = order_of(layout)
    tokens = sequence_of(layout, tmp_path_factory.mktemp("shards"))
    n, size, n_tokens, epoch = order.n_windows, order.block_size, order.n_tokens, layout["epoch"]
    inputs, targets = read_batch(tokens, order, epoch * n, n)
    phase = order.phase(epoch)
    assert 0 <= phase < size
    assert sorted(inputs[:, 0].tolist()) == sorted((phase + number * size) % n_tokens for number in range(n))
    places = torch.arange(size + 1)
    assert torch.equal(inputs, (inputs[:, :1] + places[:-1]) % n_tokens)
    assert torch.equal(targets, (inputs[:, :1] + places[1:]) % n_tokens)
    doubled = n * size - n_tokens
    assert 0 <= doubled < size
    twice = {(phase + 1 + offset) % n_tokens for offset in range(doubled)}
    assert Counter(targets.flatten().tolist()) == {place: 2 if place in twice else 1 for place in range(n_tokens)}


@settings(max_examples=60)
@given(layout=layouts(), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_batches_of_any_size_contain_the_same_samples(
    tmp_path_factory: Folders, layout: dict[str, Any], sizes: list[int]
) -> None:
    order = order_of(layout)
    tokens = sequence_of(layout, tmp_path_factory.mktemp("shards"))
    first = layout["epoch"] * order.n_windows + layout["seed"] % order.n_windows
    batches, place = [], first
    for size in sizes:
        batches.append(read_batch(tokens, order, place, size))
        place += size
    singly = [read_batch(tokens, order, number, 1) for number in range(first, place)]
    for side in (0, 1):
        assert torch.equal(torch.cat([b[side] for b in batches]), torch.cat([s[side] for s in singly]))
    whole = read_batch(tokens, order, first, place - first)
    assert torch.equal(whole[0], torch.cat([b[0] for b in batches]))


@settings(max_examples=60)
@given(layout=layouts())
def test_groups_of_shards_are_read_in_sequence(layout: dict[str, Any]) -> None:
    order = order_of(layout)
    n, epoch = order.n_windows, layout["epoch"]
    group_starts = np.array(order.shard_starts[:: layout["shuffle_group"] or len(order.shard_starts)])
    starts = order.starts(np.arange(epoch * n, (epoch + 1) * n))
    windows = (starts - order.phase(epoch)) % order.n_tokens // order.block_size
    groups = np.searchsorted(group_starts, windows * order.block_size, side="right").tolist()
    assert len([group for group, _ in groupby(groups)]) == len(set(groups))


# --- packing


documents = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=30),
        st.sampled_from(["<|endoftext|>", "one\r\ntwo\n", "a\x00b", "the tree of the tree " * 5]),
    ).filter(lambda text: not text.isspace()),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(lambda: ["the tree of the tree that was a tree"], "bpe", 290)


def write_jsonl(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def shards_of(folder: Path, texts: list[str], tokenizer: Tokenizer, shard_tokens: int, batch: int) -> TokenShards:
    source, held_out = write_jsonl(folder / "a.jsonl", texts), write_jsonl(folder / "b.jsonl", ["held out"])
    splits = TextSplits.open(DataConfig(source=(source,), valid_source=(held_out,), dedup=False))
    with mock.patch.object(preparing, "BATCH_CHARACTERS", batch):
        return preparing.prepare(splits, tokenizer, folder / f"shards-{shard_tokens}", shard_tokens=shard_tokens)


def stream(shards: TokenShards, split: str) -> list[int]:
    """The split's files concatenated, read without acorn."""
    parts = [np.fromfile(path, "<u2") for path in sorted(shards.folder.glob(f"{split}-*.bin"))]
    return np.concatenate(parts).tolist()


@settings(max_examples=25)
@given(texts=documents, shard_tokens=st.integers(1, 60), batch=st.integers(1, 60))
def test_concatenated_shards_are_separator_and_ids_of_each_document(
    tmp_path_factory: Folders, tokenizer: Tokenizer, texts: list[str], shard_tokens: int, batch: int
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    shards = shards_of(folder, texts, tokenizer, shard_tokens, batch)
    expected: list[int] = []
    for text in texts:
        expected += [tokenizer.separator_id, *tokenizer.encode_documents([text])[0]]
    expected.append(tokenizer.separator_id)
    assert stream(shards, "train") == expected
    assert shards.tokens("train")[:].tolist() == expected

    count = shards.count("train")
    assert count.documents == len(texts)
    assert count.tokens == len(expected)
    assert count.bytes == sum(len(text.encode()) for text in texts)
    assert count.words == sum(len(text.split()) + len(text.removesuffix("\n").split("\n")) for text in texts)
    lengths = [shard["tokens"] for shard in shards.manifest["splits"]["train"]["shards"]]
    assert lengths[:-1] == [shard_tokens] * (len(lengths) - 1)
    assert 1 <= lengths[-1] <= shard_tokens
    assert sum(lengths) == count.tokens
    assert verify(shards.folder) == []

    larger = shards_of(folder, texts, tokenizer, shard_tokens + 7, 1 << 20)
    assert stream(larger, "train") == expected
    assert larger.count("train") == count


# --- the automatic split

FILLING = [f"filling {number}" for number in range(60)]


def side_by_definition(text: str, share: float) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return "valid" if int.from_bytes(digest[:8], "big") / 2**64 < share else "train"


@settings(max_examples=25)
@given(texts=documents, share=st.floats(0.2, 0.8), order=st.randoms(use_true_random=False))
def test_the_split_of_a_document_depends_on_its_bytes_only(
    tmp_path_factory: Folders, texts: list[str], share: float, order: Any
) -> None:
    """Regardless of other documents, their order and repetition."""
    mixed = [*FILLING, *texts, *texts]
    order.shuffle(mixed)
    source = write_jsonl(tmp_path_factory.mktemp("split") / "a.jsonl", mixed)
    splits = TextSplits.open(DataConfig(source=(source,), valid_fraction=share, dedup=False))
    found = {split: [document.text for document in splits.documents(split)] for split in ("train", "valid")}
    for split, inside in found.items():
        assert inside == [text for text in mixed if side_by_definition(text, share) == split]
