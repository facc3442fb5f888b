"""Detecting whether the files that something was made from have changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.progress import QUIET
from acorn.text import file_records
from acorn.text.file_records import FileRecord, compare, places_of, records_of
from acorn.text.splits import TextSplits


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files of the same size with different content."""
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    for path in paths:
        path.write_text(path.name * 10)
    return [str(path) for path in paths]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose content is read."""
    found: list[str] = []
    real = file_records.sha256_of

    def watched(path: Path) -> str:
        found.append(path.name)
        return real(path)

    monkeypatch.setattr(file_records, "sha256_of", watched)
    return found


def test_a_record_matches_the_file_system(files: list[str]) -> None:
    record, status = FileRecord.of(files[0]), os.stat(files[0])
    assert record.content == "sha256:" + hashlib.sha256(b"a.txt" * 10).hexdigest()
    assert (record.name, record.size, record.changed_ns) == (files[0], 50, status.st_mtime_ns)


def test_untouched_files_are_not_read(files: list[str], reads: list[str]) -> None:
    recorded = [FileRecord.of(file) for file in files]
    reads.clear()
    assert compare(recorded, files) == (recorded, [])
    assert reads == []


def test_copied_or_touched_files_are_unchanged(files: list[str], tmp_path: Path, reads: list[str]) -> None:
    """The content decides. The new records have the new names and times."""
    recorded = [FileRecord.of(file) for file in files]
    os.utime(files[1], ns=(1, 1))
    moved = tmp_path / "moved.txt"
    os.rename(files[2], moved)
    reads.clear()
    now, changed = compare(recorded, [files[0], files[1], str(moved)])
    assert changed == []
    assert reads == ["b.txt", "moved.txt"]
    assert now == [recorded[0], FileRecord.of(files[1]), FileRecord.of(str(moved))]


def test_a_change_is_reported_with_before_and_after(files: list[str], tmp_path: Path) -> None:
    recorded = [FileRecord.of(file) for file in files]
    Path(files[0]).write_text("longer than it was" * 10)
    Path(files[1]).write_text("x" * 50)  # of the same size
    new = tmp_path / "d.txt"
    new.write_text("new")
    _, changed = compare(recorded, [files[0], files[1], str(new)])

    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()[:12]

    assert changed == [
        f"{files[0]}: was 50 bytes, sha256 {digest(b'a.txt' * 10)}; is now "
        f"180 bytes, sha256 {digest(b'longer than it was' * 10)}",
        f"{files[1]}: was 50 bytes, sha256 {digest(b'b.txt' * 10)}; is now 50 bytes, sha256 {digest(b'x' * 50)}",
        f"{new}: was absent; is now 3 bytes, sha256 {digest(b'new')}",
        f"{files[2]}: was 50 bytes, sha256 {digest(b'c.txt' * 10)}; is now absent",
    ]


def test_the_order_counts(files: list[str]) -> None:
    recorded = [FileRecord.of(file) for file in files]
    assert compare(recorded, files[::-1])[1] == ["the files are in another order"]


def test_many_changes_are_counted(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(30)]
    for file in files:
        file.write_text(file.name)
    _, changed = compare([], [str(file) for file in files])
    assert len(changed) == 11
    assert changed[-1] == "and 20 more files"


def test_missing_and_special_files_cannot_be_compared(files: list[str], tmp_path: Path) -> None:
    recorded = [FileRecord.of(files[0])]
    os.unlink(files[0])
    with pytest.raises(InputError, match="No such file") as caught:
        compare(recorded, [files[0]])
    assert caught.value.where == files[0]
    os.mkfifo(files[0])  # opening it would wait forever
    with pytest.raises(InputError, match="not a regular file"):
        compare([FileRecord(files[0], 0, 0, "sha256:0")], [files[0]])


def test_a_text_that_changes_while_digests_are_computed_is_refused(files: list[str], monkeypatch) -> None:
    """Fault 14: the record must be of what is read."""
    parts = TextSplits.open(DataConfig(source=tuple(files)), QUIET).parts["train"]
    assert [record.name for record in records_of(parts)] == files == places_of(parts)
    Path(files[2]).write_text("another text")
    with pytest.raises(InputError, match="changed while it was in use"):
        records_of(parts)


def hub(monkeypatch: pytest.MonkeyPatch, **info: object) -> None:
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: SimpleNamespace(info=lambda address: info))


ADDRESS = "hf://datasets/owner/name@0123/data/train.txt"


def test_a_large_file_on_the_hub_equals_its_copy_on_disk(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's index has the SHA-256 of large files, so a run that started online can resume offline."""
    content = Path(files[0]).read_bytes()
    hub(monkeypatch, size=50, blob_id="0", lfs={"sha256": hashlib.sha256(content).hexdigest()})
    recorded = [FileRecord.of(ADDRESS)]
    assert compare(recorded, [files[0]])[1] == []
    assert compare(recorded, [files[1]])[1] != []
    assert compare(recorded, [ADDRESS.replace("0123", "4567")])[1] == []  # another revision, the same file


def test_a_small_file_on_the_hub_has_gits_digest(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    blob = subprocess.run(["git", "hash-object", files[0]], capture_output=True, text=True, check=True).stdout.strip()
    hub(monkeypatch, size=50, blob_id=blob, lfs=None)
    recorded = [FileRecord.of(ADDRESS)]
    assert compare(recorded, [files[0]])[1] == []
    assert compare(recorded, [files[1]])[1] != []
    with pytest.raises(InputError, match="cannot be compared"):
        compare([FileRecord.of(files[0])], [ADDRESS])


def test_without_an_answer_from_the_hub_a_file_is_identified_by_its_address(files: list[str], monkeypatch) -> None:
    """The address contains the revision. It cannot be compared with a digest."""
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: SimpleNamespace(info=lambda address: 1 / 0))
    recorded = [FileRecord.of(ADDRESS)]
    assert compare(recorded, [ADDRESS])[1] == []
    assert compare(recorded, [ADDRESS.replace("0123", "4567")])[1] != []
    for before, after in ((files[0], ADDRESS), (ADDRESS, files[0])):
        with pytest.raises(InputError, match="cannot be compared"):
            compare([FileRecord.of(before)], [after])
    elsewhere = "s3://bucket/data/train.txt"
    assert compare([FileRecord.of(elsewhere)], [elsewhere])[1] == []


def test_a_local_dataset_lists_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for split, rows in (("train", 5), ("test", 2)):
        (folder / f"{split}.jsonl").write_text('{"text": "words"}\n' * rows)
    parts = TextSplits.open(DataConfig(source=(f"hf:{folder}",)), QUIET).parts
    assert places_of(parts["train"]) == [str(folder / "train.jsonl")]
    assert places_of(parts["test"]) == [str(folder / "test.jsonl")]
