"""Groups documents into batches large enough to encode on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches(items: Iterable[Item], length: Callable[[Item], int], most: int) -> Iterator[list[Item]]:
    """Yields `items` in lists. A list is complete when the lengths of its items add up to `most` or more.

    Args:
        length: returns the length of an item, such as its number of characters.
        most: in the unit of `length`.
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
