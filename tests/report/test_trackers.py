from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from acorn.errors import MissingPackageError
from acorn.report.trackers import open_trackers

RECORD = {"step": 3, "split": "train", "loss": 2.5, "tokens": 96}


class FakeWandb(ModuleType):
    """Records its calls; `broken` names the call that fails."""

    def __init__(self, broken: str = "") -> None:
        super().__init__("wandb")
        self.calls: list[tuple[Any, ...]] = []
        self.broken = broken

    def init(self, **settings: Any) -> SimpleNamespace:
        self._call("init", settings)
        return SimpleNamespace(
            log=lambda values, step: self._call("log", values, step), finish=lambda: self._call("finish")
        )

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.broken:
            raise ConnectionError("no route\nto host")


class FakeTrackio(FakeWandb):
    """The same calls as functions of the module; it prints, like the real one."""

    def log(self, values: dict[str, float], step: int) -> None:
        print("logged")
        self._call("log", values, step)

    def finish(self) -> None:
        self._call("finish")


@pytest.fixture
def notes() -> list[str]:
    return []


def test_metrics_reach_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notes: list[str]) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trackers = open_trackers(["wandb"], "mine", tmp_path, {"train": {"steps": 5}}, notes.append)
    trackers.log(3, "train", RECORD)
    trackers.close()
    assert fake.calls == [
        ("init", {"project": "acorn", "name": "mine", "dir": str(tmp_path), "config": {"train": {"steps": 5}}}),
        ("log", {"train/loss": 2.5, "train/tokens": 96.0}, 3),
        ("finish",),
    ]
    assert notes == []


def test_metrics_reach_trackio_and_nothing_is_printed_to_stdout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    trackers = open_trackers(["trackio"], "mine", tmp_path, {}, notes.append)
    trackers.log(3, "valid", {"loss": 2.25})
    trackers.close()
    assert fake.calls[1:] == [("log", {"valid/loss": 2.25}, 3), ("finish",)]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "logged\n"


@pytest.mark.parametrize("broken", ["init", "log"])
def test_a_failing_tracker_is_named_once_and_the_others_continue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notes: list[str], broken: str
) -> None:
    """Fault 31."""
    bad, good = FakeWandb(broken), FakeTrackio()
    monkeypatch.setitem(sys.modules, "wandb", bad)
    monkeypatch.setitem(sys.modules, "trackio", good)
    trackers = open_trackers(["wandb", "trackio"], "mine", tmp_path, {}, notes.append)
    for step in range(3):
        trackers.log(step, "train", RECORD)
    trackers.close()
    assert len(notes) == 1
    assert "wandb" in notes[0]
    assert "ConnectionError: no route to host" in notes[0]
    assert [call[0] for call in bad.calls].count(broken) == 1
    assert "finish" not in [call[0] for call in bad.calls]
    assert [call[0] for call in good.calls] == ["init", "log", "log", "log", "finish"]


def test_a_tracker_that_fails_at_the_end_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notes: list[str]
) -> None:
    """Fault 31."""
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("finish"))
    trackers = open_trackers(["wandb"], "mine", tmp_path, {}, notes.append)
    trackers.close()
    trackers.close()
    assert len(notes) == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_is_found_before_any_tracker_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, notes: list[str], name: str
) -> None:
    other = "trackio" if name == "wandb" else "wandb"
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, other, fake)
    monkeypatch.setitem(sys.modules, name, None)
    if name == "tensorboard":
        monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(MissingPackageError) as error:
        open_trackers([other, name], "mine", tmp_path, {}, notes.append)
    assert f"'.[{name}]'" in error.value.fix
    assert fake.calls == []


def test_tensorboard_can_read_the_event_files(tmp_path: Path, notes: list[str]) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    from tensorboard.util import tensor_util

    trackers = open_trackers(["tensorboard"], "mine", tmp_path, {}, notes.append)
    trackers.log(1, "train", {"step": 1, "loss": 2.5})
    trackers.log(2, "train", {"step": 2, "loss": 2.25})
    trackers.close()
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    written = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors("train/loss")]
    assert written == [(1, 2.5), (2, 2.25)]
    assert notes == []
