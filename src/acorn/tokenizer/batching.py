"""Documents in batches that are worth encoding on all cores at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches(items: Iterable[Item], length: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """`items` in lists, each ended by the item with which it reaches `most` (such as characters).

    Args:
        length: of an item, in the unit of `most`.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += length(item)
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
