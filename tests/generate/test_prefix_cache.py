"""What is found of a prompt's beginning, and what is dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from acorn.generate.prefix_cache import PrefixCache

CHUNK = 4
SIZE = 2 * 4 * (2 * 3 * CHUNK * 5)
"""Bytes of keys and values of a chunk."""


def chunk(value: float) -> Tensor:
    return torch.full((2, 3, CHUNK, 5), float(value))


def add(cache: PrefixCache, ids: list[int]) -> None:
    """Adds all chunks of `ids`, each filled with the number of its tokens."""
    for end in range(CHUNK, len(ids) + 1, CHUNK):
        cache.add(ids[:end], chunk(end), chunk(-end))


def found(cache: PrefixCache, ids: list[int], limit: int = 99) -> list[float]:
    chunks = cache.find(ids, min(limit, len(ids)))
    assert all((keys == -values).all() for keys, values in chunks)
    return [float(keys.mean()) for keys, _ in chunks]


def test_the_longest_beginning_of_whole_chunks_is_found() -> None:
    cache = PrefixCache(CHUNK)
    ids = list(range(12))
    add(cache, ids)
    assert found(cache, ids) == [4, 8, 12]
    assert found(cache, ids, limit=11) == [4, 8], "something is left to be read"
    assert found(cache, [*ids[:7], 99, *ids[8:]]) == [4]
    assert found(cache, ids[:3]) == []
    assert found(cache, [99, *ids[1:]]) == []
    assert found(cache, ids[4:]) == [], "the same tokens at another place"


def test_copies_are_kept() -> None:
    cache = PrefixCache(CHUNK)
    keys = chunk(1.0)
    cache.add([1, 2, 3, 4], keys, -keys)
    keys.fill_(7.0)
    assert found(cache, [1, 2, 3, 4]) == [1.0]


def test_memory_is_limited_and_ends_of_what_was_not_used_are_dropped_first() -> None:
    cache = PrefixCache(CHUNK, largest_bytes=4 * SIZE + 1)
    old, new = [1] * 12, [2] * 8
    add(cache, old)
    assert cache.bytes == 3 * SIZE
    add(cache, new)
    assert cache.bytes == 4 * SIZE
    assert found(cache, old) == [4, 8], "its end went first"
    assert found(cache, new) == [4, 8]
    add(cache, [3] * 8)
    assert cache.bytes == 4 * SIZE
    assert found(cache, old) == []
    assert found(cache, new) == [4, 8]
    assert found(cache, [3] * 8) == [4, 8]


def test_nothing_is_kept_where_a_chunk_does_not_fit() -> None:
    cache = PrefixCache(CHUNK, largest_bytes=SIZE - 1)
    add(cache, [1] * 8)
    assert cache.bytes == 0
    assert found(cache, [1] * 8) == []
