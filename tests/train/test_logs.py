"""The logs of a run: what is recorded where, and the lengths of the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_checkpoints import CONFIG, Notes

from acorn.checkpoint.training_state import Counters
from acorn.report.metrics_log import read_metrics
from acorn.report.trackers import Trackers
from acorn.run_folder import RunFolder
from acorn.train.logs import Logs, open_logs


class Listener(Notes):
    """A watcher and tracker that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        self.heard.append((record["step"], done, seconds_left))

    def valid(self, record: Mapping[str, Any]) -> None:
        self.heard.append(record["loss"])

    def sample(self, step: int, prompt: str, text: str) -> None:
        self.heard.append((step, prompt, text))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.heard.append((step, dict(values)))

    def close(self) -> None: ...


def test_files_trackers_and_watcher_get_every_record(tmp_path: Path) -> None:
    run, watcher, tracker = RunFolder(tmp_path), Listener(), Listener()
    with open_logs(run, CONFIG, Counters(), watcher, watcher.note) as opened:
        logs = Logs(opened.metrics, opened.samples, Trackers({"mine": tracker}, watcher.note), watcher)
        logs.step({"step": 3, "split": "train", "loss": 2.5}, 0.5, 9.0)
        logs.valid({"step": 3, "split": "valid", "loss": 2.0})
        logs.sample(3, "The", "The end")
        logs.note("Well.")
    assert [(r["step"], r["split"], r["loss"]) for r in read_metrics(run.metrics)] == [
        (3, "train", 2.5),
        (3, "valid", 2.0),
    ]
    assert run.samples.read_text() == '{"step":3,"prompt":"The","text":"The end"}\n'
    assert watcher.heard == [(3, 0.5, 9.0), 2.0, (3, "The", "The end")]
    assert tracker.heard == [(3, {"train/loss": 2.5}), (3, {"valid/loss": 2.0})]
    assert watcher.texts == ["Well."]


def test_the_files_are_truncated_to_the_counters(tmp_path: Path) -> None:
    """To those of the checkpoint on resume, and of a rollback while they are open."""
    run, notes, counters = RunFolder(tmp_path), Notes(), Counters()
    record = {"split": "train", "loss": 2.5}
    with open_logs(run, CONFIG, counters, notes, notes.note) as logs:
        logs.step({"step": 1, **record}, 0.5, None)
        logs.sample(1, "The", "The end")
        logs.sync(counters)
        assert (counters.metrics_bytes, counters.samples_bytes) == (len(run.metrics.read_bytes()), 43)
        logs.step({"step": 2, **record}, 0.5, None)
        assert logs.cut_to(counters) == []
        assert [line["step"] for line in read_metrics(run.metrics)] == [1]
        logs.step({"step": 2, **record}, 0.5, None)
        logs.sample(2, "The", "The start")
    with open_logs(run, CONFIG, counters, notes, notes.note):
        assert [line["step"] for line in read_metrics(run.metrics)] == [1]
        assert len(run.samples.read_bytes()) == 43
    assert notes.texts == []


def test_missing_lines_are_reported(tmp_path: Path) -> None:
    notes = Notes()
    with open_logs(RunFolder(tmp_path), CONFIG, Counters(samples_bytes=10), notes, notes.note):
        pass
    assert notes.texts == ["samples.jsonl is shorter than when the checkpoint was saved; the missing lines are lost."]
