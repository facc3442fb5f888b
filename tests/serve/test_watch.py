"""What a run folder tells, as it grows, is cut back and finishes."""

from __future__ import annotations

import asyncio
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from acorn.report.metrics_log import read_metrics
from acorn.run_folder import RunFolder
from acorn.serve.watch import MOST_POINTS, Tail, run_events, run_facts, thinned


def load_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def line(step: int, split: str = "train", **more: object) -> bytes:
    return json.dumps({"step": step, "split": split, "loss": float(step), **more}).encode() + b"\n"


def test_facts_are_those_of_the_folder(watched_run: Path) -> None:
    facts = run_facts(RunFolder(watched_run))
    records = read_metrics(watched_run / "metrics.jsonl")
    for split in ("train", "valid"):
        expected = [(one["step"], one["loss"]) for one in records if one["split"] == split]
        assert [(point["step"], point["loss"]) for point in facts[split]] == expected
    assert facts["checkpoints"] == [4, 8, 12]
    assert facts["is_finished"] is True
    assert facts["sample_prompts"] == load_toml(watched_run / "config.toml")["train"]["sample_prompts"]
    assert [sample["step"] for sample in facts["samples"]] == [6, 12]
    assert facts["offsets"]["metrics"] == (watched_run / "metrics.jsonl").stat().st_size
    assert facts["best"] in facts["checkpoints"]


def test_only_new_and_whole_lines_are_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    assert tail.read() == []
    file.write_bytes(line(1) + b"no json\n[1]\n" + line(2) + line(3)[:9])
    assert [record["step"] for record in tail.read()] == [1, 2]
    assert tail.read() == []
    file.write_bytes(file.read_bytes() + line(3)[9:])
    assert [record["step"] for record in tail.read()] == [3]
    assert not tail.is_cut


def test_a_file_that_was_cut_back_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(line(1) + line(2) + line(3))
    tail = Tail(file)
    tail.read()
    file.write_bytes(line(1))
    assert [record["step"] for record in tail.read()] == [1]
    assert tail.is_cut


def test_a_long_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acorn.serve.watch.LONGEST_READ", 100)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"".join(map(line, range(20))))
    tail, found = Tail(file), []
    while records := tail.read():
        found += records
    assert [record["step"] for record in found] == list(range(20))


def test_thinned_points_keep_the_mean_and_the_last_step() -> None:
    points = [{"step": n, "loss": float(n % 7)} for n in range(5 * MOST_POINTS + 3)]
    found = thinned(points)
    assert len(found) == MOST_POINTS
    assert found[-1]["step"] == points[-1]["step"]
    mean = sum(point["loss"] for point in points) / len(points)
    assert sum(point["loss"] for point in found) / len(found) == pytest.approx(mean, rel=0.01)


def events_of(run: RunFolder, offsets: tuple[int, int], turns: list[Any]) -> list[dict[str, Any]]:
    """What is told of a folder in which `turns` happen one after another, each between two looks; then it stops."""
    waiting = iter(turns)
    is_over = False

    async def pause(seconds: float) -> None:
        nonlocal is_over
        turn = next(waiting, None)
        is_over = turn is None
        if turn:
            turn()

    async def collect() -> list[dict[str, Any]]:
        return [event async for event in run_events(run, *offsets, lambda: is_over, pause)]

    return asyncio.run(collect())


def append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)


def test_events_tell_what_a_training_run_adds(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics.write_bytes(line(1))
    known = run.metrics.stat().st_size
    turns = [
        lambda: append(run.metrics, line(2) + line(2, "valid", bits_per_byte=1.5)),
        lambda: append(run.samples, b'{"step":2,"prompt":"","text":"once"}\n'),
        lambda: run.checkpoint(2).mkdir(parents=True),
        lambda: run.final.mkdir(),
    ]
    assert events_of(run, (known, 0), turns) == [
        {"train": [{"step": 2, "loss": 2.0}], "valid": [{"step": 2, "loss": 2.0, "bits_per_byte": 1.5}]},
        {"samples": [{"step": 2, "prompt": "", "text": "once"}]},
        {"checkpoints": [2]},
        {"finished": True},
    ]


def test_a_resumed_run_makes_the_page_begin_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics.write_bytes(line(1) + line(2))
    cut = events_of(run, (run.metrics.stat().st_size, 0), [lambda: run.metrics.write_bytes(line(1)), lambda: None])
    assert cut == [{"restart": True}]


def test_quiet_connections_get_a_sign(tmp_path: Path) -> None:
    assert events_of(RunFolder(tmp_path), (0, 0), [lambda: None] * 8) == [{}]


def test_damaged_files_of_a_run_do_no_harm(tmp_path: Path) -> None:
    """What is not finite is no JSON; a config of another version may have other values."""
    run = RunFolder(tmp_path)
    run.metrics.write_bytes(
        line(1) + b'{"step": 2, "split": "train", "loss": NaN}\n{"step": 1e999, "split": "train"}\n'
    )
    run.samples.write_bytes(b'{"step": "x", "prompt": NaN, "text": 5}\n')
    run.config.write_text("[train]\nsample_prompts = 2026-01-01\n")
    facts = run_facts(run)
    json.dumps(facts, allow_nan=False)
    assert facts["train"] == [{"step": 1, "loss": 1.0}, {"step": 2}, {}]
    assert facts["samples"] == [{"step": 0, "prompt": "nan", "text": "5"}]
    assert facts["sample_prompts"] == []
