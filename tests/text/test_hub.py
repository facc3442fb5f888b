from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acorn.config import DataConfig
from acorn.errors import InputError, UsageError
from acorn.text import hub
from acorn.text.splits import TextSplits

CARD = """---
configs:
- config_name: first
  data_files:
  - {split: train, path: data/train-*}
  - {split: dev, path: data/held-*}
- config_name: second
  data_files: "other/*.parquet"
---
"""


def table(folder: Path, split: str, texts: list[str], column: str = "text") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: texts, "id": list(range(len(texts)))}), folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """WikiText's layout: one folder per config, one file per split."""
    for config in ("wikitext-103-v1", "wikitext-2-v1"):
        for split, rows in (("train", 3_000), ("validation", 7), ("test", 5)):
            table(tmp_path / "wiki" / config, split, ["", *(f" {config} {split} row {row} \n" for row in range(rows))])
    return tmp_path / "wiki"


def opened(source: str, progress: Any = hub.QUIET, **settings: Any) -> TextSplits:
    return TextSplits.open(DataConfig(source=(source,), **settings), progress)


def texts(splits: TextSplits, split: str) -> list[str]:
    return [document.text for document in splits.documents(split)]


def test_a_local_folder_in_the_hubs_layout_streams_without_a_network(folder: Path, listener: Any) -> None:
    splits = opened(f"hf:{folder}:wikitext-103-v1", listener)
    assert splits.names == ("train", "valid", "test")
    for split, theirs, rows in (("train", "train", 3_000), ("valid", "validation", 7), ("test", "test", 5)):
        documents = list(splits.documents(split))
        assert [document.text for document in documents] == [
            f" wikitext-103-v1 {theirs} row {row} \n" for row in range(rows)
        ]
        assert documents[-1].source == f"hf:{folder}:wikitext-103-v1, split {theirs}, row {rows + 1}"
        assert splits.counts[split]["dropped_empty"] == 1
    assert not any("aiting" in note for note in listener.notes)  # no note about waiting for a local folder
    assert sum("not read: 'id'" in note for note in listener.notes) == 1
    done = [step[1] for step in listener.steps]
    assert done[-1] > 0
    assert {of for _, _, of in listener.steps} == {0}  # the total is unknown


@pytest.mark.parametrize("config", ["", ":wikitext-7"])
def test_an_unknown_config_is_refused(folder: Path, config: str) -> None:
    with pytest.raises(UsageError) as error:
        opened(f"hf:{folder}{config}")
    for name in ("wikitext-103-v1", "wikitext-2-v1"):
        assert f"hf:{folder}:{name}" in error.value.fix


def test_configs_of_a_readme(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    table(tmp_path / "data", "train", ["a", "b"])
    table(tmp_path / "data", "held", ["c"])
    table(tmp_path / "other", "all", ["d"])
    first = opened(f"hf:{tmp_path}:first")
    assert (texts(first, "train"), texts(first, "valid")) == (["a", "b"], ["c"])
    assert opened(f"hf:{tmp_path}:second").automatic
    for config in ("", ":third"):
        with pytest.raises(UsageError) as error:
            opened(f"hf:{tmp_path}{config}")
        assert error.value.fix == f"use one of hf:{tmp_path}:first, hf:{tmp_path}:second"


@pytest.mark.parametrize("below", ["", "only", "data"])
def test_the_only_config_need_not_be_named(tmp_path: Path, below: str) -> None:
    table(tmp_path / below, "train", ["a"])
    table(tmp_path / below, "validation", ["b"])
    splits = opened(f"hf:{tmp_path}")
    assert (texts(splits, "train"), texts(splits, "valid")) == (["a"], ["b"])


def test_a_missing_column_is_refused_with_the_existing_ones(tmp_path: Path) -> None:
    """Fault 9: a missing field; the existing fields are listed."""
    table(tmp_path, "train", ["a"], column="body")
    with pytest.raises(InputError, match="no column 'text'; it has 'body', 'id'"):
        opened(f"hf:{tmp_path}")
    table(tmp_path, "validation", ["b"], column="body")
    assert texts(opened(f"hf:{tmp_path}", text_field="body"), "train") == ["a"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_every_kind_of_string_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    for split in ("train", "validation"):
        column = pa.array([f"{split} é", f"{split} 漢"]).cast(kind)
        pq.write_table(pa.table({"text": column}), tmp_path / f"{split}-00000-of-00001.parquet")
    splits = opened(f"hf:{tmp_path}")
    assert (texts(splits, "train"), texts(splits, "valid")) == (
        ["train é", "train 漢"],
        ["validation é", "validation 漢"],
    )


def test_damaged_data_is_refused(folder: Path) -> None:
    """Fault 10: truncated parquet, inside a dataset."""
    file = folder / "wikitext-2-v1" / "train-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read") as error:
        texts(opened(f"hf:{folder}:wikitext-2-v1"), "train")
    assert error.value.where.startswith(f"hf:{folder}:wikitext-2-v1")


def test_documents_of_a_table_are_its_rows(folder: Path) -> None:
    with pytest.raises(UsageError, match="rows"):
        opened(f"hf:{folder}:wikitext-2-v1", document="line")


@pytest.mark.parametrize("source", ["hf:", "hf:wikitext", "hf:./gone/folder", "hf:a/b/c", "hf:a/b:c:d"])
def test_neither_a_dataset_name_nor_a_folder_is_refused(source: str) -> None:
    with pytest.raises(UsageError, match="neither a Hub dataset nor an existing folder"):
        opened(source)


def test_an_unreachable_hub_is_reported_with_a_way_to_work_offline() -> None:
    """Fault 15: the Hub cannot be reached. (The tests run offline.)"""
    with pytest.raises(InputError, match="The Hub cannot be reached: HF_HUB_OFFLINE is set") as error:
        opened("hf:Salesforce/wikitext:wikitext-103-v1")
    assert "hf download" in error.value.fix
    assert "and use hf:wikitext" in error.value.fix


def test_a_copy_in_the_cache_is_used_without_the_hub(
    folder: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 15: offline, with a dataset that `hf download` downloaded before."""
    cache = folder.parent / "cache"
    repository = cache / "datasets--Salesforce--wikitext"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / ("0" * 40))
    download = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **settings: download(*args, cache_dir=cache, **settings)
    )
    splits = opened("hf:Salesforce/wikitext:wikitext-2-v1", listener)
    assert len(texts(splits, "valid")) == 7
    assert any("read from the local copy" in note for note in listener.notes)
    with pytest.raises(UsageError, match="several configs"):
        opened("hf:Salesforce/wikitext")


class SlowHub:
    """A substitute for the library's loading functions that answers only after a note about the wait."""

    def __init__(self, answer: Any) -> None:
        self.noted = threading.Event()
        self.notes: list[str] = []
        self.answer = answer
        self.tries = 0

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.noted.set()

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None: ...

    def end(self, task: str) -> None: ...

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        self.tries = datasets.config.STREAMING_OPEN_MAX_RETRIES
        assert self.noted.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def as_streaming_dataset(self) -> Any:
        return self.answer


def test_waiting_for_the_hub_is_noted_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 15: a Hub that does not answer."""
    slow = SlowHub(ConnectionError("timed out"))
    monkeypatch.setattr(datasets, "load_dataset_builder", slow)
    monkeypatch.setattr(hub, "WAIT_NOTE_S", 0.0)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    before = datasets.config.STREAMING_OPEN_MAX_RETRIES
    with pytest.raises(InputError, match="The Hub cannot be reached: timed out"):
        opened("hf:some/dataset", slow)
    assert slow.notes[0].startswith("Still waiting for the Hub (hf:some/dataset")
    assert "HF_HUB_OFFLINE=1" in slow.notes[0]
    assert slow.tries < before
    assert before == datasets.config.STREAMING_OPEN_MAX_RETRIES


def test_waiting_in_the_middle_of_a_stream_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 15: a Hub that stops answering."""
    slow = SlowHub(None)

    class Stream:
        def with_format(self, kind: str) -> Stream:
            return self

        def iter(self, batch_size: int) -> Iterator[pa.Table]:
            slow()
            yield pa.table({"text": ["a"]})
            raise TimeoutError

    monkeypatch.setattr(hub, "WAIT_NOTE_S", 0.0)
    reader = hub.HubReader(
        hub.HubSplit("hf:some/dataset, split train", Stream(), slow), DataConfig(), hub.Reading("strict")
    )
    rows = reader.rows()
    assert next(rows) == (b"a", 1)
    assert "hf:some/dataset, split train" in slow.notes[0]
    with pytest.raises(InputError, match="TimeoutError"):
        next(rows)


def test_the_watch_thread_ends_with_the_call() -> None:
    with pytest.raises(InputError):
        opened("hf:some/dataset")
    assert "waiting for the Hub" not in {thread.name for thread in threading.enumerate()}
