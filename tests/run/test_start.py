"""Which folders a run may be started or resumed in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from acorn.config import Config
from acorn.config_files import to_toml
from acorn.data.made_from import MadeFrom, write_made_from
from acorn.errors import UsageError
from acorn.files import write_sealed_json
from acorn.run import lifecycle
from acorn.run.pretrain import pretrain
from acorn.run.start import check_folder
from acorn.run_folder import RunFolder

OWN = ("config.toml", "tokenizer.json", "metrics.jsonl", "samples.jsonl", "environment.json", "report.html", "loss.png")
"""Names of files in a run folder that a user's own files may also have."""


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", [*OWN, "sources.json", "evaluation.json", "checkpoints/best.json", "notes.txt"])
def test_a_folder_with_the_users_own_files_is_not_a_run(tmp_path: Path, name: str, resume: bool) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text('steps = 5\nname = "mine"\n')
    with pytest.raises(UsageError, match="not empty and holds no run") as caught:
        check_folder(RunFolder(tmp_path), resume)
    assert "--resume" not in caught.value.fix


def test_a_checkpoint_or_record_identifies_a_run(tmp_path: Path) -> None:
    """Each is enough, because the others may be lost."""
    shown: dict[str, Callable[[RunFolder], object]] = {
        "config": lambda run: run.config.write_text(to_toml(Config())),
        "edited config": lambda run: run.config.write_text(to_toml(Config()).replace("lr = 0.0", "lr = 0.5")),
        "sources": lambda run: write_made_from(run, MadeFrom()),
        "evaluation": lambda run: write_sealed_json(run.evaluation, {"step": 1}),
        "checkpoint": lambda run: run.checkpoint(4).mkdir(parents=True),
        "save interrupted": lambda run: (run.checkpoints / "step-00000004.new").mkdir(parents=True),
    }
    for name, make in shown.items():
        run = RunFolder(tmp_path / name)
        run.root.mkdir()
        make(run)
        (run.root / "notes.txt").write_text("mine")
        check_folder(run, resume=True)
        with pytest.raises(UsageError, match="not empty") as caught:
            check_folder(run, resume=False)
        assert "--resume" in caught.value.fix


@pytest.mark.parametrize("trains_on_text", [True, False])
def test_resuming_is_not_advised_for_a_run_of_another_kind(tmp_path: Path, trains_on_text: bool) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text(to_toml(Config()))
    with pytest.raises(UsageError, match="not empty: it holds a run") as caught:
        check_folder(run, resume=False, trains_on_text=trains_on_text)
    assert ("--resume" in caught.value.fix) == trains_on_text
    assert "another folder with --out" in caught.value.fix


class Killed(BaseException):
    """Simulates a kill: nothing is cleaned up after it."""


@pytest.mark.parametrize("source", ["text", "prepared shards"])
def test_a_run_that_is_killed_at_any_of_its_first_files_starts_again(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """At each file that appears in the run folder up to the first step, including the first half-written one."""
    overrides = ["train.steps=1"]
    if source == "prepared shards":
        monkeypatch.setattr(lifecycle, "machine_peak", lambda runtime: pytest.fail("no run gets so far"))
        with pytest.raises(pytest.fail.Exception):
            pretrain(tiny(*overrides), tmp_path / "first")
        overrides += [f"data.shards={tmp_path / 'first' / 'data'}", "data.source=[]"]
    real, out = os.replace, tmp_path / "run"
    left: list[set[str]] = []

    def reach(limit: int) -> bool:
        """Starts a run that is killed before file number `limit` gets its name. Returns whether it got that far."""
        count = 0

        def replace(old: str, new: str) -> None:
            nonlocal count
            if Path(new).parent == out:
                count += 1
                if count > limit:
                    raise Killed
            real(old, new)

        monkeypatch.setattr(os, "replace", replace)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # a kill leaves the half-written file
            patch.setattr(lifecycle, "machine_peak", _stop)
            with pytest.raises(Killed):
                pretrain(tiny(*overrides), out, resume=True)
        left.append({entry.name for entry in out.iterdir()})
        return count > limit

    limit = 0
    while reach(limit):
        limit += 1
    assert limit >= 3
    assert not any("config.toml" in names for names in left[:1])
    assert all("config.toml" in names for names in left[1:])


def _stop(runtime: object) -> None:
    raise Killed


@pytest.mark.parametrize("setting", ["finetune.task=classify", "finetune.freeze=1", "lora.rank=4"])
def test_pretraining_refuses_settings_of_finetuning(tmp_path: Path, tiny, setting: str) -> None:
    """They would have no effect, so nothing is written."""
    with pytest.raises(UsageError, match="settings of finetuning"):
        pretrain(tiny(setting), tmp_path / "run")
    assert not (tmp_path / "run").exists()
