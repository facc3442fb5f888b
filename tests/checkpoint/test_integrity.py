"""Checks of a run: what is whole, what is torn, and which checkpoint to go by."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from acorn.checkpoint import integrity
from acorn.checkpoint.integrity import (
    FolderCheck,
    check_read_files,
    checkpoint_faults,
    kind_of,
    newest_whole_checkpoint,
    readable_checkpoints,
    verify_run,
)
from acorn.config_files import load_config, to_toml
from acorn.errors import DamageError, UsageError
from acorn.files import seal, sha256_of, write_file
from acorn.run_folder import RunFolder

CHECKPOINT_FILES = [
    "config.toml",
    "tokenizer.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
]


class Notes:
    """A progress that records its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def at(self, task: str, done: float, total: float, unit: str = "bytes") -> None: ...

    def end(self, task: str) -> None: ...


def flip_bit(file: Path, position: int = -1) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


def tear(folder: Path) -> None:
    flip_bit(folder / "model.safetensors")


def relist(folder: Path) -> None:
    """Makes the manifest match the current content of the folder, as an attacker would."""
    files = [path for path in folder.iterdir() if path.name != "manifest.json"]
    entries = {path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in files}
    (folder / "manifest.json").write_text(json.dumps(seal({"files": entries})))


def test_an_intact_run_has_no_faults(run: RunFolder) -> None:
    checks = verify_run(run.root)
    assert [(check.kind, check.folder) for check in checks] == [
        ("run", run.root),
        ("data", run.data),
        ("checkpoint", run.checkpoint(10)),
        ("checkpoint", run.checkpoint(20)),
        ("model", run.final),
    ]
    assert all(check.whole for check in checks)
    assert newest_whole_checkpoint(run) == run.checkpoint(20)


@pytest.mark.parametrize("name", ["config.toml", "tokenizer.json", "checkpoints/best.json", "data"])
@pytest.mark.parametrize("how", ["gone", "changed"])
def test_the_runs_own_files_are_checked(run: RunFolder, name: str, how: str) -> None:
    """Faults that a run or an evaluation would refuse later are found now."""
    path = run.root / name
    if how == "gone":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        flip_bit(path / "train-00000.bin" if path.is_dir() else path, position=50)
    faults = [fault for check in verify_run(run.root) for fault in check.faults]
    if (name, how) == ("checkpoints/best.json", "gone"):  # a run that was never validated has none
        assert faults == []
    else:
        assert len(faults) == 1
        assert name in faults[0]


def test_prepared_shards_are_checked_where_they_are(run: RunFolder, tmp_path: Path) -> None:
    shutil.move(run.data, tmp_path / "prepared")
    write_file(run.config, to_toml(load_config(None, [f"data.shards={tmp_path / 'prepared'}"])))
    assert all(check.whole for check in verify_run(run.root))
    flip_bit(tmp_path / "prepared" / "train-00000.bin")
    faults = [fault for check in verify_run(run.root) for fault in check.faults]
    assert len(faults) == 1
    assert str(tmp_path / "prepared" / "train-00000.bin") in faults[0]


def test_a_single_folder_is_checked_by_itself(run: RunFolder) -> None:
    assert verify_run(run.checkpoint(10)) == [FolderCheck(run.checkpoint(10), "checkpoint", ())]
    assert verify_run(run.final) == [FolderCheck(run.final, "model", ())]


@pytest.mark.parametrize("file", CHECKPOINT_FILES)
def test_a_flipped_bit_is_found_and_the_older_checkpoint_is_used(run: RunFolder, file: str) -> None:
    """Faults 37 and 38: the file is named; an older checkpoint is the newest intact one, and a note says so."""
    flip_bit(run.checkpoint(20) / file, position=20)
    damaged = [check for check in verify_run(run.root) if not check.whole]
    assert [check.folder for check in damaged] == [run.checkpoint(20)]
    if file != "manifest.json":
        assert str(run.checkpoint(20) / file) in damaged[0].faults[0]
    progress = Notes()
    assert newest_whole_checkpoint(run, progress) == run.checkpoint(10)
    assert len(progress.notes) == 1
    assert "step 10" in progress.notes[0]
    assert str(run.checkpoint(20)) in progress.notes[0]


@pytest.mark.parametrize("file", CHECKPOINT_FILES)
@pytest.mark.parametrize("listed", [True, False])
def test_a_missing_file_is_found(run: RunFolder, file: str, listed: bool) -> None:
    """Even if the manifest does not list it."""
    (run.checkpoint(20) / file).unlink()
    if not listed and file != "manifest.json":
        relist(run.checkpoint(20))
    faults = checkpoint_faults(run.checkpoint(20))
    assert len(faults) == 1
    assert file.split(".")[0] in faults[0]


@pytest.mark.parametrize(("folder", "kind"), [("data", "data"), ("final", "model")])
def test_damage_of_data_and_final_model_is_found(run: RunFolder, folder: str, kind: str) -> None:
    """Fault 22 for shards: found and named."""
    file = next(path for path in sorted((run.root / folder).iterdir()) if path.suffix in (".bin", ".safetensors"))
    flip_bit(file)
    damaged = [check for check in verify_run(run.root) if not check.whole]
    assert [(check.kind, check.folder) for check in damaged] == [(kind, run.root / folder)]
    assert str(file) in damaged[0].faults[0]


def test_a_truncated_file_is_found(run: RunFolder) -> None:
    file = run.checkpoint(20) / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size - 100)
    assert str(file) in checkpoint_faults(run.checkpoint(20))[0]


def test_if_all_checkpoints_are_damaged_it_is_an_error(run: RunFolder) -> None:
    """Fault 39: checkpoints exist but all are damaged: never start over silently."""
    for step in (10, 20):
        tear(run.checkpoint(step))
    with pytest.raises(DamageError) as caught:
        newest_whole_checkpoint(run)
    assert caught.value.exit_code == 4
    assert str(run.checkpoint(10)) in caught.value.what
    assert str(run.checkpoint(20)) in caught.value.what


def test_a_checkpoint_that_is_removed_while_it_is_checked(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that another process is training is intact, even if that process removes older checkpoints."""
    real = integrity.verify_folder

    def verify(path: Path) -> list[str]:
        if path == run.checkpoint(10):
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(integrity, "verify_folder", verify)
    checks = verify_run(run.root)
    assert [check.folder for check in checks if check.kind == "checkpoint"] == [run.checkpoint(20)]
    assert all(check.whole for check in checks)


def test_without_checkpoints_the_result_is_none(run: RunFolder, tmp_path: Path) -> None:
    assert newest_whole_checkpoint(RunFolder(tmp_path / "absent")) is None
    shutil.rmtree(run.checkpoint(10))
    shutil.rmtree(run.checkpoint(20))
    assert newest_whole_checkpoint(run) is None


@pytest.mark.parametrize("listed", [True, False])
def test_a_pickle_in_a_checkpoint_is_refused_unread(run: RunFolder, listed: bool) -> None:
    """Fault 44: also if the manifest lists it."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (run.root / "sprung",)

    torch.save(Trap(), run.checkpoint(20) / "optimizer.pt")
    if listed:
        relist(run.checkpoint(20))
    assert "optimizer.pt" in checkpoint_faults(run.checkpoint(20))[0]
    assert newest_whole_checkpoint(run) == run.checkpoint(10)
    assert not (run.root / "sprung").exists()


@pytest.mark.parametrize("name", ["../../config.toml", "/etc/hostname"])
def test_a_manifest_that_names_files_outside_its_folder_is_refused(run: RunFolder, name: str) -> None:
    """Fault 63: `../` or an absolute path in a manifest."""
    manifest = run.checkpoint(20) / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    manifest.write_text(json.dumps(seal(content)))
    assert "outside its folder" in checkpoint_faults(run.checkpoint(20))[0]


def test_a_manifest_that_was_changed_is_found(run: RunFolder) -> None:
    """Even if it still matches the files, like a manifest without its own digest."""
    manifest = run.checkpoint(20) / "manifest.json"
    content = json.loads(manifest.read_text())
    for changed in ({**content, "note": "mine"}, {"files": content["files"]}):
        manifest.write_text(json.dumps(changed))
        assert "its SHA-256 differs" in checkpoint_faults(run.checkpoint(20))[0]


def test_the_checkpoint_of_another_step_is_found(run: RunFolder) -> None:
    """An intact checkpoint with the name of another one."""
    shutil.rmtree(run.checkpoint(20))
    shutil.copytree(run.checkpoint(10), run.checkpoint(20))
    assert "belongs to step 10" in checkpoint_faults(run.checkpoint(20))[0]
    assert newest_whole_checkpoint(run) == run.checkpoint(10)


def test_files_added_by_desktops_are_ignored(run: RunFolder) -> None:
    (run.checkpoint(20) / ".DS_Store").write_text("x")
    assert checkpoint_faults(run.checkpoint(20)) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"step-00000020.old": "whole"}, "step-00000020.old"),
        ({"step-00000020.old": "whole", "step-00000020.new": "whole"}, "step-00000020.new"),
        ({"step-00000020.old": "whole", "step-00000020.new": "torn"}, "step-00000020.old"),
        ({"step-00000020": "whole", "step-00000020.new": "torn"}, "step-00000020"),
        ({"step-00000020.new": "torn"}, "step-00000010"),
        ({"removed-step-00000020": "whole"}, "step-00000010"),
    ],
)
def test_interrupted_replacements(run: RunFolder, state: dict[str, str], expected: str) -> None:
    """Fault 33: every state between writing X.new and deleting X.old; checking changes nothing."""
    shutil.move(run.checkpoint(20), run.root / "kept")
    for name, condition in state.items():
        shutil.copytree(run.root / "kept", run.checkpoints / name)
        if condition == "torn":
            (run.checkpoints / name / "manifest.json").unlink()
    before = sorted(path.name for path in run.checkpoints.iterdir())
    assert newest_whole_checkpoint(run) == run.checkpoints / expected
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before


def test_steps_are_ordered_as_numbers(run: RunFolder) -> None:
    shutil.copytree(run.checkpoint(20), run.checkpoint(123_456_789))
    (run.checkpoints / "step-latest").mkdir()
    assert list(readable_checkpoints(run)) == [10, 20, 123_456_789]


def test_the_kind_of_a_folder(run: RunFolder) -> None:
    assert kind_of(run.root) == "run"
    assert kind_of(run.checkpoint(10)) == "checkpoint"
    assert kind_of(run.final) == "model"
    (run.checkpoint(10) / "state.json").unlink()
    assert kind_of(run.checkpoint(10)) == "checkpoint"


@pytest.mark.parametrize("what", ["absent", "a file", "empty", "other"])
def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "place"
    if what == "a file":
        path.write_text("x")
    elif what != "absent":
        path.mkdir()
    if what == "other":
        (path / "notes.txt").write_text("x")
    for ask in (kind_of, verify_run):
        with pytest.raises(UsageError) as caught:
            ask(path)
        assert str(path) in caught.value.where


@pytest.mark.parametrize("file", ["config.json", "model.gguf"])
def test_a_model_without_a_manifest_cannot_be_checked(tmp_path: Path, file: str) -> None:
    """Other programs do not write a manifest; that is not damage."""
    (tmp_path / file).write_text("{}")
    with pytest.raises(UsageError, match=r"no manifest\.json, so its files cannot be checked"):
        verify_run(tmp_path)


def test_only_the_files_that_are_read_are_compared(run: RunFolder) -> None:
    (run.final / "README.md").write_text("my own words")
    (run.final / "figure.png").write_text("x")
    check_read_files(run.final, ["config.json", "model.safetensors"])
    (run.final / "second.safetensors").write_text("x")
    with pytest.raises(DamageError, match=r"second\.safetensors"):
        check_read_files(run.final, ["config.json", "second.safetensors"])
