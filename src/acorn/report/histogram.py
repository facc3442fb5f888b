"""A histogram of lengths in lines of text."""

from __future__ import annotations

from collections.abc import Sequence

MOST_RANGES = 12
BAR_WIDTH = 40  # characters


def length_histogram(lengths: Sequence[int], limit: int, bar: str = "█") -> list[str]:
    """A line for each range of lengths up to the limit, and one for all that are longer, each with its count.

    Args:
        lengths: of at least one thing, each 1 or more.
        limit: the longest length that is not too long.
        bar: the character of the bars.
    """
    within = [length for length in lengths if length <= limit]
    counts: dict[str, int] = {}
    if within:
        width = _width(max(within) - min(within) + 1)
        first = (min(within) - 1) // width * width + 1
        for begin in range(first, max(within) + 1, width):
            end = min(begin + width - 1, limit)
            name = f"{begin:,}-{end:,}" if begin < end else f"{end:,}"
            counts[name] = sum(begin <= length <= end for length in within)
    if len(within) < len(lengths):
        counts[f"over {limit:,}"] = len(lengths) - len(within)
    column, most = max(map(len, counts)), max(counts.values())
    return [
        f"{name:>{column}}  {count:>{len(f'{most:,}')},}  {bar * _bar(count, most)}".rstrip()
        for name, count in counts.items()
    ]


def _bar(count: int, most: int) -> int:
    return max(1, round(BAR_WIDTH * count / most)) if count else 0


def _width(spread: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... of which MOST_RANGES cover `spread`."""
    width, step = 1, 0
    while width * MOST_RANGES < spread:
        width = width * 5 // 2 if step % 3 == 1 else width * 2
        step += 1
    return width
