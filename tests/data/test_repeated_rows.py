from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.data.part_rows import ROW
from acorn.data.repeated_rows import RepeatedRows
from acorn.text.digests import digest_of


@settings(max_examples=30, deadline=None)
@given(numbers=st.lists(st.integers(0, 40), max_size=200), chunk=st.integers(1, 70), bucket=st.integers(1, 99))
def test_the_rows_are_those_that_a_set_finds(
    numbers: list[int], chunk: int, bucket: int, tmp_path_factory: object
) -> None:
    folder: Path = tmp_path_factory.mktemp("repeats")  # type: ignore[attr-defined]
    # Digests with zero bytes at the end, at the beginning, and equal in one half.
    raw = [bytes(16), b"\1" + bytes(15), bytes(15) + b"\1", *(digest_of(bytes([n])) for n in range(38))]
    digests = np.array([np.frombuffer(raw[n], ROW["digest"])[0] for n in numbers], ROW["digest"])
    seen: set[int] = set()
    expected = [n in seen or bool(seen.add(n)) for n in numbers]
    chunks = (digests[start : start + chunk] for start in range(0, len(digests), chunk))
    found = RepeatedRows.find(chunks, len(numbers), folder, bucket)
    assert found[0 : len(numbers)].tolist() == expected
    for start in range(0, len(numbers), 7):
        assert found[start : start + 3].tolist()[: len(numbers) - start] == expected[start : start + 3]
    assert list(folder.iterdir()) == []
