"""Histograms of lengths: every length is counted once, and none hides beyond the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from acorn.report.histogram import BAR_WIDTH, MOST_RANGES, length_histogram


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(1, 3000))
def test_each_length_is_in_one_range(lengths: list[int], limit: int) -> None:
    lines = [line.split() for line in length_histogram(lengths, limit, "#")]
    longer = sum(length > limit for length in lengths)
    assert [words[2] for words in lines if words[0] == "over"] == [f"{longer:,}"] * bool(longer)
    ranges = [words for words in lines if words[0] != "over"]
    assert len(ranges) <= MOST_RANGES + 1
    for name, count, *bar in ranges:
        first, _, last = name.replace(",", "").partition("-")
        inside = sum(int(first) <= length <= int(last or first) for length in lengths)
        assert int(count) == inside
        assert bool(bar) == bool(inside)
        assert int(last or first) <= limit
    assert sum(int(words[1]) for words in ranges) == len(lengths) - longer
    assert max(len(words[-1]) for words in lines if "#" in words[-1]) <= BAR_WIDTH


def test_a_few_lengths() -> None:
    assert length_histogram([3, 3, 5, 40], 32, "#") == [
        f"      3  2  {40 * '#'}",
        "      4  0",
        f"      5  1  {20 * '#'}",
        f"over 32  1  {20 * '#'}",
    ]
