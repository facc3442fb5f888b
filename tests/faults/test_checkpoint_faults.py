"""Saving checkpoints, keeping them, and detecting damaged ones."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acorn.checkpoint import training_state
from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.rotation import rotate_checkpoints
from acorn.files import read_sealed_json
from acorn.folders import verify_folder
from acorn.report.metrics_log import read_metrics
from acorn.run import ending, final_scoring
from acorn.run_folder import RunFolder, step_of
from acorn.train import saving as saving_module
from acorn.train import windows as windows_module

SRC = Path(__file__).parents[2] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC)}

# Saves the same step repeatedly in child processes; the n-th ends at its n-th system call that changes something.
# Counted are the calls that Python reports to audit hooks, fsync, and the files of the safetensors library.
KILLED_ANYWHERE = """
import json, os, sys
from pathlib import Path
import torch
from acorn.checkpoint import tensor_files
from acorn.checkpoint import training_state
from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.training_state import Counters, read_checkpoint, save_checkpoint
from acorn.config_files import load_config
from acorn.run_folder import RunFolder

torch.set_num_threads(1)
run, step, old_step = RunFolder(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "fsync", "save_file")
left = None

def count(event, arguments=()):
    global left
    if left is None or event not in EVENTS:
        return
    if event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")):
        return
    if left == 0:
        os._exit(9)
    left -= 1

def counted(name, real):
    def call(*arguments, **options):
        count(name)
        return real(*arguments, **options)
    return call

sys.addaudithook(count)
os.fsync = counted("fsync", lambda descriptor: None)  # the end of a process does not lose the system's buffers
tensor_files.save_file = counted("save_file", tensor_files.save_file)

model = torch.nn.Linear(2, 2, bias=False)
config = load_config()

def save(step, value):
    with torch.no_grad():
        model.weight.fill_(value)
    save_checkpoint(
        run.checkpoint(step), config, "{}", model, [], Counters(step=step, samples=int(value)), {"data": ""}
    )

found = []
for point in range(1000):
    for folder in run.checkpoints.glob("*") if run.checkpoints.exists() else ():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    if old_step:
        save(old_step, 1.0)
    child = os.fork()
    if child == 0:
        left = point
        save(step, 2.0)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    newest = newest_whole_checkpoint(run)
    if newest is None:
        found.append(None)
    else:
        checkpoint = read_checkpoint(newest)
        weight = checkpoint.weights["weight"]
        assert (weight == weight[0, 0]).all() and weight[0, 0] == checkpoint.counters.samples
        found.append([checkpoint.counters.step, checkpoint.counters.samples])
    save(step, 3.0)  # the next save works in any case
    assert read_checkpoint(newest_whole_checkpoint(run)).counters.samples == 3
    assert {path.name for path in run.checkpoints.iterdir()} == {run.checkpoint(s).name for s in (step, old_step) if s}
    if not killed:
        break
print(json.dumps(found))
"""


@pytest.mark.fault(33)
@pytest.mark.parametrize("old_step", [8, 4, 0], ids=["the same step again", "a later step", "the first one"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_at_any_moment_of_a_save(tmp_path: Path, old_step: int) -> None:
    """Fault 33: wherever the process ends, the old or the new checkpoint is intact, and the next save works."""
    command = [sys.executable, "-c", KILLED_ANYWHERE, str(tmp_path), "8", str(old_step)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    old, new = [old_step, 1] if old_step else None, [8, 2]
    assert len(found) > 15
    switch = found.index(new)
    assert found == [old] * switch + [new] * (len(found) - switch)
    assert 0 < switch < len(found) - 1 or not old_step


@pytest.fixture
def saving() -> list[Path]:
    """Contains the checkpoint that is being saved."""
    return []


@pytest.fixture
def attempts(monkeypatch, saving: list[Path]) -> list[int]:
    """The steps at which saving a checkpoint was attempted."""
    steps: list[int] = []
    real = saving_module.save_checkpoint

    def watched(path, *arguments, **options):
        steps.append(int(path.name.removeprefix("step-")))
        saving.append(path)
        try:
            return real(path, *arguments, **options)
        finally:
            saving.clear()

    monkeypatch.setattr(saving_module, "save_checkpoint", watched)
    return steps


def is_checkpoint(path: Path) -> bool:
    return step_of(path.name) is not None


@pytest.mark.fault(34)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_save_is_retried(pretrain, fine, full_disk, attempts, tmp_path: Path, number: int) -> None:
    """Fault 34: it is reported and retried after 1, 2 and 4 more steps; the run continues."""
    full_disk(lambda path: is_checkpoint(path) and attempts[-1] in (8, 9, 11), number)
    done = pretrain(tmp_path / "run", "train.steps=16", "train.save_every=8", "train.eval_every=0")
    fine(done, "could not be saved")
    assert done.stderr.count("could not be saved") == 3
    assert attempts == [8, 9, 11, 15, 16]
    run = RunFolder(tmp_path / "run")
    assert run.checkpoint_steps() == [15, 16]
    assert not [path for path in run.checkpoints.iterdir() if path.name.endswith((".new", ".old", ".tmp"))]


@pytest.mark.fault(34)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_that_stays_full(
    pretrain, fine, refused, digest, attempts, saving, after_step, tmp_path: Path, call: str
) -> None:
    """Fault 34: the fourth consecutive failure ends the run; the last checkpoint is intact, and the run can be
    resumed."""
    run = RunFolder(tmp_path / "run")
    kept: list[dict[str, str]] = []
    after_step(11, lambda: kept.append(digest(run.checkpoint(10))))
    command = ("train.steps=40", "train.save_every=10", "train.eval_every=0")
    with pytest.MonkeyPatch.context() as patch:
        if call == "replace":
            real_replace = os.replace

            def replace(source, target):
                if is_checkpoint(Path(target)) and attempts[-1] >= 20:
                    raise OSError(errno.ENOSPC, "No space left on device", str(target))
                real_replace(source, target)

            patch.setattr(os, "replace", replace)
        else:
            real_fsync = os.fsync

            def fsync(descriptor):
                if saving and attempts[-1] >= 20:
                    raise OSError(errno.EIO, "Input/output error")
                real_fsync(descriptor)

            patch.setattr(os, "fsync", fsync)
        done = pretrain(run.root, *command)
    refused(done, 6, "could not be saved", "step-00000027", "is intact")
    assert attempts == [10, 20, 21, 23, 27]
    assert run.checkpoint_steps() == [10]
    assert [digest(run.checkpoint(10))] == kept
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000010"]
    fine(pretrain(run.root, *command, "--resume"), "Resuming from step 10")


@pytest.mark.fault(34)
@pytest.mark.parametrize("moment", ["the end", "a signal"])
def test_a_save_that_cannot_be_retried(
    pretrain, refused, full_disk, attempts, stop_after, tmp_path: Path, moment: str
) -> None:
    """Fault 34: at the end of the run and after a signal there is no retry: the run fails."""
    last = 8 if moment == "the end" else 6
    if moment == "a signal":
        stop_after(6)
    full_disk(lambda path: is_checkpoint(path) and attempts[-1] == last)
    done = pretrain(tmp_path / "run", "train.eval_every=0")
    refused(done, 6, "The disk is full", f"step-{last:08d}", "is intact")
    run = RunFolder(tmp_path / "run")
    assert attempts == [4, last]
    assert run.checkpoint_steps() == [4]
    assert verify_folder(run.checkpoint(4)) == []
    assert not run.final.exists()


@pytest.mark.fault(35)
def test_rotation_waits_for_an_intact_checkpoint(run: Path, flip, untouched) -> None:
    """Fault 35: while the newest checkpoint is damaged, no older one is removed."""
    folder = RunFolder(run)
    flip(folder.checkpoint(8) / "model.safetensors")
    with untouched(run):
        assert rotate_checkpoints(folder, folder.checkpoint_steps()[-1], keep=1) == []


@pytest.mark.fault(35)
def test_rotation_in_a_run(pretrain, fine, monkeypatch, flip, tmp_path: Path) -> None:
    """Fault 35: a save that failed silently does not remove an older checkpoint."""
    real = saving_module.save_checkpoint

    def torn(path, *arguments, **options):
        real(path, *arguments, **options)
        if path.name != "step-00000002":
            flip(path / "model.safetensors")

    monkeypatch.setattr(saving_module, "save_checkpoint", torn)
    fine(pretrain(tmp_path / "run", "checkpoint.keep=1", "train.save_every=2", "train.eval_every=0"))
    assert newest_whole_checkpoint(RunFolder(tmp_path / "run")) == RunFolder(tmp_path / "run").checkpoint(2)


@pytest.mark.fault(35)
def test_the_best_checkpoint_is_kept(pretrain, acorn, fine, monkeypatch, tmp_path: Path) -> None:
    """Fault 35: regardless of the number of later ones."""
    sums = iter([5.0, 3.0, 4.0, 6.0])
    monkeypatch.setattr(windows_module, "score", lambda *arguments, **options: (next(sums), 1))
    out = tmp_path / "run"
    fine(pretrain(out, "checkpoint.keep=1", "train.eval_every=2", "train.save_every=1"))
    assert RunFolder(out).checkpoint_steps() == [4, 8]
    assert read_sealed_json(RunFolder(out).best) == {"loss": 3.0, "step": 4}
    assert verify_folder(RunFolder(out).checkpoint(4)) == []
    fine(acorn("generate", out, "--checkpoint", "best", "--max-new-tokens", 2))


@pytest.mark.fault(36)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_a_save(pretrain, acorn, fine, monkeypatch, tmp_path: Path, number: int, code: int) -> None:
    """Fault 36: the save is finished; then the run stops and says how to resume."""
    write = training_state.save_tensors

    def interrupted(path, tensors):
        monkeypatch.setattr(training_state, "save_tensors", write)
        os.kill(os.getpid(), number)
        write(path, tensors)

    monkeypatch.setattr(training_state, "save_tensors", interrupted)
    run = RunFolder(tmp_path / "run")
    done = pretrain(run.root)
    assert done.returncode == code, done.stderr
    assert "Stopped at step 4; a checkpoint was saved" in done.stderr
    assert str(run.checkpoint(4)) in done.stderr
    assert f"acorn pretrain --resume --out {run.root}" in done.stderr
    assert "Traceback" not in done.stderr
    assert verify_folder(run.checkpoint(4)) == []
    fine(acorn("pretrain", "--resume", "--out", run.root), "Resuming from step 4")


@pytest.mark.fault(36)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_the_final_scoring(
    pretrain, acorn, fine, digest, finished: Path, monkeypatch, tmp_path: Path, number: int, code: int
) -> None:
    """Fault 36: scoring stops at once, training is saved, and resuming ends as without the signal."""
    score = final_scoring.evaluate_split

    def interrupted(*arguments, **options):
        monkeypatch.setattr(final_scoring, "evaluate_split", score)
        os.kill(os.getpid(), number)
        return score(*arguments, **options)

    monkeypatch.setattr(final_scoring, "evaluate_split", interrupted)
    run = RunFolder(tmp_path / "run")
    done = pretrain(run.root)
    assert done.returncode == code, done.stderr
    assert "Stopped while scoring; training is done, and the checkpoint of step 8 is saved." in done.stderr
    assert f"acorn pretrain --resume --out {run.root}" in done.stderr
    assert "Traceback" not in done.stderr
    assert verify_folder(run.checkpoint(8)) == []
    assert not run.final.exists()
    assert not run.evaluation.exists()
    fine(acorn("pretrain", "--resume", "--out", run.root), "Resuming from step 8")
    assert digest(run.final) == digest(RunFolder(finished).final)
    assert run.evaluation.read_bytes() == RunFolder(finished).evaluation.read_bytes()


@pytest.mark.fault(36)
def test_a_signal_while_the_model_is_written(pretrain, acorn, monkeypatch, tmp_path: Path) -> None:
    """Fault 36: the model is written completely, and the run is finished."""
    write = ending.write_model_folder

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return write(*arguments, **options)

    monkeypatch.setattr(ending, "write_model_folder", interrupted)
    run = RunFolder(tmp_path / "run")
    done = pretrain(run.root)
    assert done.returncode == 130, done.stderr
    assert "the run is complete" in done.stderr
    assert verify_folder(run.final) == []
    assert json.loads(acorn("pretrain", "--resume", "--out", run.root, "--json").stdout)["was_complete"]


INTERRUPTED_TWICE = """
import os, signal, sys
from acorn.checkpoint import training_state
from acorn.cli.main import main

write = training_state.save_tensors

def interrupted(path, tensors):
    write(path, tensors)
    if "step-00000008" in str(path):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

training_state.save_tensors = interrupted
sys.argv = ["acorn", *sys.argv[1:]]
main()
"""


@pytest.mark.fault(36)
def test_a_second_interrupt_during_a_save(acorn, fine, digest, unfinished: Path) -> None:
    """Fault 36: the process ends at once; the unfinished save is not a checkpoint, and the older one is intact."""
    run = RunFolder(unfinished)
    shutil.rmtree(run.checkpoint(8))
    before = digest(run.checkpoint(4))
    command = [sys.executable, "-c", INTERRUPTED_TWICE, "pretrain", "--resume", "--out", str(unfinished)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert run.checkpoint_steps() == [4]
    assert digest(run.checkpoint(4)) == before
    assert run.checkpoint(8).with_name("step-00000008.new").exists()
    fine(acorn("pretrain", "--resume", "--out", unfinished), "Resuming from step 4")
    assert run.checkpoint_steps() == [4, 8]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["best.json", "step-00000004", "step-00000008"]
    steps = [record["step"] for record in read_metrics(run.metrics) if record["split"] == "train"]
    assert steps == list(range(1, 9))


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "config.toml", "tokenizer.json"]
)
def test_a_flipped_bit(acorn, refused, untouched, run: Path, flip, name: str) -> None:
    """Fault 37: the message names the file, and what is intact."""
    folder = RunFolder(run)
    flip(folder.checkpoint(8) / name)
    with untouched(run):
        done = acorn("verify", run)
        assert done.returncode == 4
        assert f"DAMAGED  checkpoint  {folder.checkpoint(8)}" in done.stdout
        assert f"intact   checkpoint  {folder.checkpoint(4)}" in done.stdout
        assert (
            f"{folder.checkpoint(8) / name}: its content is not what manifest.json lists (SHA-256 differs)"
            in done.stderr
        )
        assert f"still good: {run / 'data'}, {folder.checkpoint(4)}, {folder.final}" in done.stderr
        done = acorn("generate", run, "--checkpoint", 8)
        refused(done, 4, "The checkpoint is damaged", name, "SHA-256 differs", "choose one of the steps 4")


@pytest.mark.fault(37)
def test_a_flipped_bit_in_the_final_model(acorn, refused, untouched, run: Path, flip) -> None:
    """Fault 37: the same for the final model; the newest checkpoint is suggested instead."""
    flip(run / "final" / "model.safetensors")
    with untouched(run):
        done = acorn("generate", run, "--prompt", "the cat")
        refused(done, 4, "model.safetensors", "SHA-256 differs", str(run / "final"), "--checkpoint last")
    assert acorn("generate", run, "--checkpoint", "last", "--max-new-tokens", 2).returncode == 0


@pytest.mark.fault(37)
def test_a_checkpoint_under_another_name(acorn, refused, untouched, run: Path) -> None:
    """Fault 37: a folder that was swapped with that of another step is detected."""
    folder = RunFolder(run)
    shutil.rmtree(folder.checkpoint(8))
    shutil.copytree(folder.checkpoint(4), folder.checkpoint(8))
    with untouched(run):
        done = acorn("verify", run)
        assert done.returncode == 4, done.stdout
        assert str(folder.checkpoint(8)) in done.stderr
        refused(acorn("generate", run, "--checkpoint", 8), 4, "step-00000008", "choose one of the steps 4")


@pytest.mark.fault(37)
def test_a_manifest_edited_by_hand(acorn, untouched, run: Path) -> None:
    """Fault 37: a change of a file and of its line in the manifest is detected by the manifest's own digest."""
    path = RunFolder(run).checkpoint(8) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["state.json"]["note"] = "mine"
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with untouched(run):
        done = acorn("verify", run)
    assert done.returncode == 4
    assert str(path) in done.stderr
