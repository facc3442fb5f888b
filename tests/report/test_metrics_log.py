from __future__ import annotations

import json
import math
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.errors import DamageError, ResourceError
from acorn.report.metrics_log import JsonLines, read_metrics, read_samples


def test_fields_are_written_in_the_documented_order(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write({"mfu": 0.5, "loss": 2.0, "split": "train", "skipped": 1, "tokens": 64, "step": 1})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"step":1,"tokens":64,"split":"train","loss":2.0,"mfu":0.5,"skipped":1}\n'


def test_every_line_is_written_to_the_file_immediately(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "split": "train"})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "split": "train"}]
    assert log.length == (tmp_path / "metrics.jsonl").stat().st_size


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path, value: float) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "split": "train", "loss": 3.5, "grad_norm": value})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "split": "train", "loss": 3.5}


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec=None), max_size=20), max_size=5))
def test_any_text_is_read_back_unchanged(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Including all kinds of line ends, control characters and lone surrogates."""
    path = tmp_path_factory.mktemp("log") / "samples.jsonl"
    log = JsonLines(path)
    records = [{"step": step, "prompt": "", "text": text} for step, text in enumerate(texts)]
    for record in records:
        log.write(record)
    log.close()
    assert read_samples(path) == records


def test_resuming_truncates_the_log_to_the_recorded_length(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write({"step": 1, "split": "train"})
    log.sync()
    recorded, content = log.length, path.read_bytes()
    log.write({"step": 2, "split": "train"})
    log.close()

    resumed = JsonLines(path)
    assert resumed.cut_to(recorded) == 0
    assert path.read_bytes() == content
    resumed.write({"step": 2, "split": "train"})
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_a_log_shorter_than_recorded_is_kept_and_the_gap_is_reported(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "split": "train"})
    whole = log.length
    assert log.cut_to(whole + 100) == 100
    assert log.length == whole


@pytest.mark.parametrize("torn_bytes", [1, 10, 5000])
def test_a_half_written_line_is_removed_when_the_log_is_opened_again(tmp_path: Path, torn_bytes: int) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = b'{"step":1,"split":"train"}\n'
    path.write_bytes(whole + b'{"step":2,' + b" " * (torn_bytes - 1))
    assert read_metrics(path) == [{"step": 1, "split": "train"}]
    log = JsonLines(path)
    log.write({"step": 2, "split": "train"})
    assert [record["step"] for record in read_metrics(path)] == [1, 2]
    assert path.read_bytes().startswith(whole)


def test_a_log_with_only_a_half_written_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"st')
    assert JsonLines(path).length == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sets a limit of the operating system")
def test_a_full_disk_leaves_only_complete_lines(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write({"step": 1, "split": "train"})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # Space for five more bytes: the operating system writes these and then fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
        with pytest.raises(ResourceError) as error:
            log.write({"step": 2, "split": "train"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert str(path) in error.value.where
    assert path.read_bytes() == before
    log.write({"step": 2, "split": "train"})
    assert [record["step"] for record in read_metrics(path)] == [1, 2]


def test_a_huge_learning_rate_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step":1,"split":"train","lr":1e25}\n')
    assert read_metrics(path)[0]["lr"] == 1e25
    path.write_text('{"step":18446744073709551616,"split":"train"}\n')
    with pytest.raises(DamageError):
        read_metrics(path)


def test_a_missing_log_has_no_records(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    assert read_samples(tmp_path / "samples.jsonl") == []


@pytest.mark.parametrize("line", [b"not json", b"\xff\xfe", b"[1]", b'{"split":"train"}'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1,"split":"train"}\n' + line + b'\n{"step":3,"split":"train"}\n')
    with pytest.raises(DamageError) as error:
        read_metrics(path)
    assert error.value.where == f"{path}, line 2"
