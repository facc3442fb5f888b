"""Power losses, and the effectiveness of the checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from torture import power


def test_nothing_saved_is_lost_and_nothing_torn_is_used(tmp_path: Path) -> None:
    found = power.check(power.record(tmp_path / "run").operations, tmp_path / "states", every=3)
    assert found["broken"] == []
    assert found["distinct"] > 300


@pytest.mark.parametrize("mutation", power.MUTATIONS)
def test_the_checks_notice_a_removed_guarantee(tmp_path: Path, mutation: str) -> None:
    """Without a flush, or with a copy instead of a rename, the checks find losses."""
    found = power.check(power.record(tmp_path / "run", mutation).operations, tmp_path / "states", every=11)
    assert found["broken"]


def test_the_disk_keeps_what_was_flushed() -> None:
    """A file and its name, each flushed or not."""
    write, name = power.Write(1, b"new"), power.Rename(power.ROOT, None, "a", 1, False)
    for operations, expected in (
        ((name, write), {}),
        ((name, write, power.Flush(1)), {}),
        ((name, write, power.Flush(power.ROOT)), {"a": b""}),
        ((name, write, power.Flush(1), power.Flush(power.ROOT)), {"a": b"new"}),
    ):
        disk = power.Disk()
        for operation in operations:
            disk.take(operation)
        entries = disk.names[power.ROOT]
        assert {entry: disk.contents.get(number, b"") for entry, number in entries.items()} == expected
