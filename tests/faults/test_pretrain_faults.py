"""Faults before and during training."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from cpus import needs_fp16

from acorn.folder_lock import FolderLock
from acorn.folders import verify_folder
from acorn.kernels.build import Unavailable
from acorn.report.metrics_log import JsonLines, read_metrics
from acorn.run import resolve
from acorn.run_folder import RunFolder
from acorn.runtime import control_groups, memory
from acorn.train import divergence as divergence_module
from acorn.train import loop as loop_module
from acorn.train import windows as windows_module
from acorn.train.clock import RunClock

SRC = Path(__file__).parents[2] / "src"
QUIET = ("train.eval_every=0", "train.save_every=0")


def train_steps(run: Path) -> list[int]:
    return [record["step"] for record in read_metrics(run / "metrics.jsonl") if record["split"] == "train"]


@pytest.mark.fault(24)
def test_too_little_text(pretrain, refused, tmp_path: Path) -> None:
    """Fault 24: fewer tokens than one window; the message has both numbers, and no step is done."""
    done = pretrain(tmp_path / "run", "model.block_size=40000")
    refused(done, 3, "fewer than one window of block_size + 1 = 40,001", "lower model.block_size")
    manifest = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())
    assert f"The training text has {manifest['splits']['train']['tokens']:,} tokens" in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.fault(25)
def test_all_wrong_keys_are_reported(pretrain, refused, untouched, tmp_path: Path) -> None:
    """Fault 25: unknown keys, each with the nearest valid one, and wrong types, in one message."""
    wrong = ("train.stepz=3", "optimizer.learn_rate=1", "model.n_layer=two", 'train.compile="maybe"', "modle.n_head=2")
    with untouched(tmp_path):
        done = pretrain(tmp_path / "run", *wrong)
    refused(done, 2, "5 errors", "train.stepz; did you mean train.steps?", "model.n_layer", '"two"', '"maybe"')
    assert "unknown key modle; did you mean model?" in done.stderr
    assert "optimizer.learn_rate" in done.stderr


@pytest.mark.fault(25)
def test_all_wrong_keys_of_a_file_are_reported(acorn, refused, untouched, tmp_path: Path) -> None:
    """Fault 25: the same for a config file, which is named."""
    config = tmp_path / "my.toml"
    config.write_text('[train]\nstepz = 3\nseed = "one"\n\n[model]\nn_layr = 2\n')
    with untouched(tmp_path):
        done = acorn("pretrain", config, "--out", tmp_path / "run")
    refused(done, 2, "3 errors", "did you mean train.steps?", "train.seed", "did you mean model.n_layer?", "my.toml")


@pytest.mark.fault(26)
@pytest.mark.parametrize("teller", ["kernel", "a group above"])
def test_a_step_that_does_not_fit_into_memory(pretrain, refused, monkeypatch, tmp_path: Path, teller: str) -> None:
    """Fault 26: predicted before the first step, from what the kernel and the control groups leave."""
    above, proc = tmp_path / "groups" / "user.slice", tmp_path / "self"
    for folder in (above / "job", proc):
        folder.mkdir(parents=True)
    (tmp_path / "meminfo").write_text(f"MemAvailable: {1300 if teller == 'kernel' else 4000000} kB\n")
    (proc / "cgroup").write_text("0::/user.slice/job\n")
    (proc / "mountinfo").write_text(f"30 24 0:26 / {tmp_path}/groups rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    for folder, limit in ((above / "job", "max"), (above, "max" if teller == "kernel" else "1300000")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("0\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(control_groups, "PROC_SELF", proc)
    done = pretrain(tmp_path / "run", "train.batch_size=512", "train.micro_batch_size=512")
    refused(done, 6, "A training step would need about", "GB are available", "train.micro_batch_size = 512 on cpu")
    assert "set train.micro_batch_size=" in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    smaller = int(done.stderr.rpartition("set train.micro_batch_size=")[2].split()[0])
    assert 1 <= smaller < 512
    done = pretrain(
        tmp_path / "again", "train.batch_size=512", f"train.micro_batch_size={smaller}", "train.steps=1", *QUIET
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.fault(26)
@pytest.mark.parametrize("kind", ["GPU", "CPU", "Python"])
def test_out_of_memory_in_a_step(pretrain, refused, losses, tmp_path: Path, kind: str) -> None:
    """Fault 26: during a run: the message says which setting to lower; the last checkpoint is intact."""
    errors = {
        "GPU": torch.OutOfMemoryError("CUDA out of memory."),
        "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        "Python": MemoryError(),
    }

    def fail(step: int, loss: torch.Tensor) -> torch.Tensor:
        if step == 6:
            raise errors[kind]
        return loss

    losses(fail)
    done = pretrain(tmp_path / "run")
    if kind == "GPU":
        refused(done, 6, "Out of memory after step 5", "train.micro_batch_size = 4", "train.micro_batch_size=2")
    else:
        refused(done, 6, "Out of memory", "train.micro_batch_size")
    run = RunFolder(tmp_path / "run")
    assert run.checkpoint_steps() == [4]
    assert verify_folder(run.checkpoint(4)) == []


@pytest.mark.fault(27)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_step_is_skipped(pretrain, fine, losses, tmp_path: Path, value: float) -> None:
    """Fault 27: no update; step and schedule continue; the batch is named."""
    rates, weights = [], []

    def poison(step: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * value if step == 3 else loss

    real = loop_module.set_rates

    def watched(optimizers, factor):
        rates.append(factor)
        weights.append([p.detach().clone() for group in optimizers[0].param_groups for p in group["params"]])
        real(optimizers, factor)

    losses(poison)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "set_rates", watched)
        done = pretrain(tmp_path / "run", *QUIET)
    fine(done, "step 3 was skipped: a loss or gradient was not finite (samples 8 to 11)")
    assert train_steps(tmp_path / "run") == list(range(1, 9))
    assert len(set(rates[2:])) == 6  # the linear schedule moves at every step, including skipped ones
    same = [all(map(torch.equal, weights[n], weights[n + 1])) for n in range(7)]
    assert [n + 1 for n, is_same in enumerate(same) if is_same] == [3]


@pytest.mark.fault(27)
@pytest.mark.parametrize("first", [3, 6], ids=["no checkpoint yet", "after a checkpoint"])
def test_many_non_finite_steps(
    pretrain, refused, digest, monkeypatch, losses, after_step, tmp_path: Path, first: int
) -> None:
    """Fault 27: consecutive skips, then rollbacks, each with another order of the text, then the end."""
    batches, checkpoint = [], RunFolder(tmp_path / "run").checkpoint(4)
    kept: list[dict[str, str]] = []
    real = windows_module.read_batch

    def watched(tokens, order, sample, size):
        inputs, targets = real(tokens, order, sample, size)
        batches.append((sample // size + 1, inputs.tolist()))
        return inputs, targets

    monkeypatch.setattr(windows_module, "read_batch", watched)
    losses(lambda step, loss: loss * math.nan if step >= first else loss)
    after_step(first - 1, lambda: kept.append(digest(checkpoint) if checkpoint.exists() else {}))
    done = pretrain(tmp_path / "run", "train.max_skips=1", "train.max_rollbacks=2", "train.eval_every=0")
    back = 4 if first > 4 else 0
    refused(
        done,
        5,
        f"rolled back to step {back} (rollback 1 of 2), with another sample order",
        f"rolled back to step {back} (rollback 2 of 2)",
        "2 steps in a row were not finite, after 2 rollbacks",
        f"step {first + 1}, samples",
        "lower optimizer.lr",
    )
    sitting = list(range(back + 1, first + 2))
    assert [step for step, _ in batches] == [*range(1, first + 2), *sitting, *sitting]
    orders = [tuple(map(tuple, batch)) for step, batch in batches if step == first]
    assert len(set(orders)) == 3
    assert RunFolder(tmp_path / "run").checkpoint_steps() == ([4] if back else [])
    if back:
        assert [digest(checkpoint)] == kept
    assert train_steps(tmp_path / "run") == sorted(set(train_steps(tmp_path / "run")))


@pytest.mark.fault(27)
def test_without_a_checkpoint_a_rollback_restores_the_initial_weights(pretrain, fine, losses, tmp_path: Path) -> None:
    """Fault 27: a temporary divergence costs a rollback, and the run finishes."""
    calls = []

    def poison(step: int, loss: torch.Tensor) -> torch.Tensor:
        calls.append((step, loss.item() / 128))
        return loss * math.nan if len(calls) in (2, 3) else loss

    losses(poison)
    done = pretrain(tmp_path / "run", "train.max_skips=1", *QUIET)
    fine(done, "rolled back to step 0 (rollback 1 of")
    assert [step for step, _ in calls] == [1, 2, 3, *range(1, 9)]
    assert calls[3][1] == pytest.approx(calls[0][1], abs=0.1)  # the loss of initial weights: a uniform guess
    assert calls[2][1] < calls[0][1] - 0.1
    state = json.loads((RunFolder(tmp_path / "run").checkpoint(8) / "state.json").read_text())
    assert state["counters"]["rollbacks"] == 1


@pytest.mark.fault(27)
def test_an_fp16_overflow_is_not_a_divergence(pretrain, fine, losses, monkeypatch, tmp_path: Path) -> None:
    """Fault 27: above its minimum, the loss scale is halved and no skip is counted; the checkpoint has the scale."""
    monkeypatch.setattr(resolve, "fp16_library", lambda: Unavailable("this CPU has no fp16 instructions"))
    losses(lambda step, loss: loss * math.inf if step <= 3 else loss)
    done = pretrain(tmp_path / "run", "train.precision=fp16", "train.max_skips=0", "train.max_rollbacks=0", *QUIET)
    fine(done, "step 1 was skipped: fp16 overflow", "step 3 was skipped: fp16 overflow")
    counters = json.loads((RunFolder(tmp_path / "run").checkpoint(8) / "state.json").read_text())["counters"]
    assert counters["loss_scale"] == 2.0**13
    assert (counters["rollbacks"], counters["skips"]) == (0, 0)


@pytest.mark.fault(27)
@needs_fp16
def test_with_fp16_matmuls_only_there_is_no_loss_scale(pretrain, fine, losses, tmp_path: Path) -> None:
    """Fault 27: so a non-finite value counts as a skip, as in fp32."""
    losses(lambda step, loss: loss * math.inf if step == 3 else loss)
    done = pretrain(tmp_path / "run", "train.precision=fp16", "train.max_skips=1", *QUIET)
    fine(done, "step 3 was skipped: a loss or gradient was not finite")
    counters = json.loads((RunFolder(tmp_path / "run").checkpoint(8) / "state.json").read_text())["counters"]
    assert counters["loss_scale"] == 2.0**16


@pytest.mark.fault(28)
def test_a_loss_spike(pretrain, fine, monkeypatch, losses, tmp_path: Path) -> None:
    """Fault 28: the step is reported with its batch; training continues."""
    monkeypatch.setattr(divergence_module, "SPIKE_WINDOW", 3)
    losses(lambda step, loss: loss * 5 if step == 6 else loss)
    done = pretrain(tmp_path / "run", *QUIET)
    fine(done, "step 6: loss spike:", "(samples 20 to 23)")
    assert done.stderr.count("loss spike") == 1
    assert train_steps(tmp_path / "run") == list(range(1, 9))


@pytest.mark.fault(29)
def test_a_folder_that_cannot_be_written(pretrain, refused, untouched, monkeypatch, tmp_path: Path) -> None:
    """Fault 29: reported before anything is read or trained. (Root ignores permissions, so the error is simulated.)"""

    def forbidden(self, *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with untouched(tmp_path):
        done = pretrain(tmp_path / "run")
    refused(done, 6, "Writing failed: Permission denied", str(tmp_path / "run"), "check that the folder can be written")


@pytest.mark.fault(29)
def test_a_folder_below_a_file(pretrain, refused, untouched, tmp_path: Path) -> None:
    """Fault 29: a path that can never become a folder."""
    (tmp_path / "file").touch()
    with untouched(tmp_path):
        refused(pretrain(tmp_path / "file" / "run"), 6, "Writing failed", f"{tmp_path / 'file' / 'run'}\n")
        refused(pretrain(tmp_path / "file"), 2, "is a file, not a folder", "--out", "name another folder")


@pytest.mark.fault(29)
def test_checkpoints_that_do_not_fit_on_the_disk(pretrain, refused, monkeypatch, tmp_path: Path) -> None:
    """Fault 29: the bytes needed by the checkpoints and the free bytes, before the first step."""
    monkeypatch.setattr("acorn.run.budget.free_bytes", lambda path: 1000)
    done = pretrain(tmp_path / "run")
    refused(done, 6, "The run's checkpoints need", "bytes; only 1,000 are free", str(tmp_path), "checkpoint.keep")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.device=cuda", "The device cuda is unavailable on this machine"),
        ("model.vocab_size=1000", "the tokenizer will have at most 300"),
        ("report.trackers=wandb", "needs the package wandb"),
    ],
)
def test_errors_that_do_not_depend_on_the_text_come_first(
    pretrain, untouched, monkeypatch, tmp_path: Path, override: str, said: str
) -> None:
    """Fault 19: nothing is read, and no folder remains, not even those above the run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("acorn.text.splits.TextSplits.open", lambda *_: pytest.fail("the text was opened"))
    with untouched(tmp_path):
        done = pretrain(tmp_path / "runs" / "mine", override)
    assert done.returncode == (7 if "trackers" in override else 2)
    assert said in done.stderr


@pytest.mark.fault(19)
def test_errors_about_a_given_tokenizer_come_before_the_text(
    acorn, pretrain, refused, untouched, monkeypatch, shards: Path, tokenizer_file: Path, tmp_path: Path
) -> None:
    """Fault 19: with `tokenizer.path` and with `data.shards`."""
    monkeypatch.setattr("acorn.text.splits.TextSplits.open", lambda *_: pytest.fail("the text was opened"))
    for given, text in ((f"tokenizer.path={tokenizer_file}", tmp_path), (f"data.shards={shards}", None)):
        with untouched(tmp_path):
            done = pretrain(tmp_path / "run", given, "model.vocab_size=299", text=text)
        refused(done, 2, "299 vocabulary entries, but the tokenizer has 300", "model.vocab_size")


@pytest.mark.fault(19)
def test_errors_about_the_text_leave_nothing_either(pretrain, refused, fine, untouched, tmp_path: Path) -> None:
    """Fault 19: the corrected command line works. Files of an earlier start are not changed."""
    with untouched(tmp_path):
        refused(pretrain(tmp_path / "run", "model.vocab_size=299"), 2, "the tokenizer has 300", "model.vocab_size")
    refused(pretrain(tmp_path / "run", "model.block_size=40000"), 3, "fewer than one window")
    with untouched(tmp_path):
        refused(pretrain(tmp_path / "run", "model.vocab_size=299", "--resume"), 2, "the tokenizer has 300")
    fine(pretrain(tmp_path / "run", "train.steps=1", "--resume"))
    fine(pretrain(tmp_path / "other", "train.steps=1", "model.vocab_size=300"))


@pytest.mark.fault(45)
def test_a_stopped_process(pretrain, fine, monkeypatch, after_step, tmp_path: Path) -> None:
    """Fault 45: schedule, seconds and rates continue as if it had not been stopped, with a note."""
    hours = [0.0]
    monkeypatch.setattr(loop_module, "RunClock", lambda: RunClock(lambda: time.monotonic() + hours[0] * 3600))
    after_step(3, lambda: hours.append(hours.pop() + 2))
    minutes = ("train.steps=0", "train.minutes=0.01", *QUIET)
    done = pretrain(tmp_path / "run", *minutes)
    fine(done, "the process was stopped or asleep for 7200 s", "which is not counted")
    assert done.stderr.count("asleep") == 1
    records = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["split"] == "train"]
    assert len(records) > 4
    assert records[-1]["seconds"] < 60
    assert min(record["tokens_per_second"] for record in records) > 128 / 60
    rates = [record["lr"] for record in records]
    assert rates[3] > 0.5 * max(rates[:3])


HOLDER = """
import sys
from pathlib import Path
from acorn.folder_lock import FolderLock

with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.fault(30)
def test_two_runs_in_one_folder(acorn, refused, fine, untouched, unfinished: Path) -> None:
    """Fault 30: the second is refused with the holder of the folder; the lock of a killed holder does not count."""
    lock = RunFolder(unfinished).lock
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with untouched(unfinished):
            done = acorn("pretrain", "--resume", "--out", unfinished)
        refused(done, 2, "Another run is using this folder", f"process {holder.pid} on", str(unfinished), "stop it")
    finally:
        holder.kill()
        holder.wait()
    assert str(holder.pid) in lock.read_text()
    fine(acorn("pretrain", "--resume", "--out", unfinished))


@pytest.mark.fault(30)
def test_two_new_runs_in_one_folder(pretrain, refused, untouched, tmp_path: Path) -> None:
    """Fault 30: also if the first has written nothing yet."""
    out = tmp_path / "run"
    with FolderLock(RunFolder(out).lock), untouched(out):
        refused(pretrain(out), 2, "Another run is using this folder", f"process {os.getpid()} on")


@pytest.mark.fault(31)
@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_tracker_that_fails(pretrain, fine, monkeypatch, tmp_path: Path, broken: str) -> None:
    """Fault 31: reported once; training continues."""

    def call(name: str):
        def answer(*arguments, **options):
            if name == broken:
                raise ConnectionError("no route to host")
            return tracker

        return answer

    tracker = types.SimpleNamespace(**{name: call(name) for name in ("init", "log", "finish")})
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    done = pretrain(tmp_path / "run", 'report.trackers=["wandb"]')
    fine(done, "the tracker wandb failed and gets no more metrics (ConnectionError: no route to host)")
    assert done.stderr.count("wandb") == 1
    assert train_steps(tmp_path / "run") == list(range(1, 9))


@pytest.mark.fault(32)
@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_the_system_clock_jumps(pretrain, fine, monkeypatch, after_step, tmp_path: Path, jump: float) -> None:
    """Fault 32: rates and times come from a monotonic clock."""
    real = time.time
    after_step(3, lambda: monkeypatch.setattr(time, "time", lambda: real() + jump))
    begin = time.monotonic()
    fine(pretrain(tmp_path / "run"))
    passed = time.monotonic() - begin
    records = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["split"] == "train"]
    seconds = [record["seconds"] for record in records]
    assert len(seconds) == 8
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] < passed
    assert all(record["tokens_per_second"] > 128 / passed for record in records)
    assert abs(time.time() - real()) > 1e8


@pytest.mark.fault(17)
def test_a_disk_that_fills_up_while_training(pretrain, refused, monkeypatch, tmp_path: Path) -> None:
    """Fault 17: a line of metrics that does not fit ends the run; no part of it remains."""
    real = JsonLines.write

    class Full:
        def __init__(self, file) -> None:
            self.file = file

        def write(self, line: bytes) -> int:
            return self.file.write(line[:10])  # as much as fits

        def __getattr__(self, name: str):
            return getattr(self.file, name)

    def write(self, record) -> None:
        if record["step"] == 6 and self.path.name == "metrics.jsonl":
            self._file = Full(self._file)
        real(self, record)

    monkeypatch.setattr(JsonLines, "write", write)
    done = pretrain(tmp_path / "run")
    refused(done, 6, "The disk is full", "bytes were needed", "metrics.jsonl", "free some space")
    run = RunFolder(tmp_path / "run")
    assert train_steps(run.root) == [1, 2, 3, 4, 5]
    assert run.metrics.read_bytes().endswith(b"}\n")
    assert verify_folder(run.checkpoint(4)) == []
