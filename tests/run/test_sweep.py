"""Sweeps: one text for all runs, each equal to a run alone; kills, failures and stops, and resuming after them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from acorn.errors import InputError, ResourceError, StoppedError, UsageError
from acorn.files import write_sealed_json
from acorn.folder_lock import FolderLock
from acorn.run import shared_text, sweep
from acorn.run.grid import build_grid
from acorn.run.pretrain import pretrain
from acorn.run.sweep import FailedRunsError, Start, SweepResult, run_sweep
from acorn.run_folder import RunFolder

SETTINGS = [
    *("tokenizer.vocab_size=300", "model.n_layer=1", "model.n_embd=16", "model.block_size=16", "train.batch_size=2"),
    *("train.steps=4", "train.eval_every=0", "train.save_every=2", "train.sample_tokens=2", "train.threads=1"),
    *("train.precision=fp32", "train.compile=false", "train.micro_batch_size=2"),
]


class Ended:
    """A run that has already ended with this exit code."""

    def __init__(self, exit_code: int = 0, error: str = "") -> None:
        self.exit_code, self.error = exit_code, error

    def is_over(self) -> bool:
        return True

    def stop(self) -> None:
        pass


def here(run: RunFolder, overrides: Sequence[str], log: Path) -> Ended:
    """Trains in this process instead of a new one."""
    pretrain(None, run.root, resume=True, overrides=overrides)
    return Ended()


def at_once(run: RunFolder, overrides: Sequence[str], log: Path) -> Ended:
    """Writes the figures of a finished run without training; use with `no_models`."""
    write_sealed_json(run.evaluation, {"step": 4, "valid": {"bits_per_byte": 2.5}})
    return Ended()


def started_nothing(run: RunFolder, overrides: Sequence[str], log: Path) -> Ended:
    raise AssertionError(f"{run.root} was started")


class Starts:
    """Calls `start`, or the function given for a seed, and records what was started."""

    def __init__(self, start: Start = here, **instead: Callable[[RunFolder], Ended]) -> None:
        self.start, self.instead, self.names = start, instead, list[str]()

    def __call__(self, run: RunFolder, overrides: Sequence[str], log: Path) -> Ended:
        self.names.append(run.root.name)
        for seed, start in self.instead.items():
            if run.root.name.endswith(f"seed={seed[1:]}"):
                return start(run)
        return self.start(run, overrides, log)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a run with figures count as done, even without a model."""
    monkeypatch.setattr(sweep, "is_finished", lambda run, step, missing: True)


@pytest.fixture(scope="session")
def short_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "short.txt"
    path.write_text("".join(f"{n} and {n + 1} are {2 * n + 1}.\n" for n in range(400)))
    return path


@pytest.fixture
def run(short_text: Path, tmp_path: Path) -> Callable[..., SweepResult]:
    def run(*varied: str, out: Path = tmp_path / "sweep", text: object = short_text, **options) -> SweepResult:
        source = [f"data.source={text}"] if text else []
        arguments = [argument for argument in SETTINGS if argument.split("=")[0] not in "".join(varied)]
        grid = build_grid("small", [*source, *arguments, *varied])
        return run_sweep(grid, out, **{"start": here, **options})

    return run


def test_the_text_is_prepared_once_and_each_run_equals_a_run_alone(
    run, short_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []
    real = shared_text.text_to_shards
    monkeypatch.setattr(shared_text, "text_to_shards", lambda *given: prepared.append(1) or real(*given))
    result = run("optimizer.lr=[0.005,0.02]", "train.seed=[0,1]")
    assert prepared == [1]
    assert [found.status for found in result.runs] == ["done"] * 4
    assert result.error is None
    shards = [found.folder / "data" / "train-00000.bin" for found in result.runs]
    assert len({os.stat(shard).st_ino for shard in shards}) == 1
    alone = build_grid("small", [f"data.source={short_text}", *SETTINGS, "optimizer.lr=[0.02]", "train.seed=[1]"])[0]
    pretrain(alone.config, tmp_path / "alone")
    weights = "final/model.safetensors"
    assert (result.runs[3].folder / weights).read_bytes() == (tmp_path / "alone" / weights).read_bytes()
    assert result.runs[3].figure() == result.runs[3].evaluation["valid"]["bits_per_byte"]
    again = run("optimizer.lr=[0.005,0.02]", "train.seed=[0,1]", resume=True, start=started_nothing)
    assert [found.status for found in again.runs] == ["done"] * 4
    starts = Starts()  # resume with more seeds, then with more steps
    run("optimizer.lr=[0.02]", "train.seed=[1,2]", resume=True, start=starts)
    assert starts.names == ["lr=0.02,seed=2"]
    longer = run("optimizer.lr=[0.02]", "train.seed=[1]", "train.steps=6", resume=True)
    assert longer.runs[0].step == 6
    assert [result.runs[3].undisturbed, longer.runs[0].undisturbed] == [True, False]


@pytest.mark.usefixtures("no_models")
def test_each_tokenizer_gets_its_own_prepared_text(run, tmp_path: Path) -> None:
    result = run("tokenizer.vocab_size=[290,300]", "train.seed=[0,1]", start=at_once)
    assert len(list((tmp_path / "sweep" / "text").iterdir())) == 2
    assert len({os.stat(found.folder / "data" / "train-00000.bin").st_ino for found in result.runs}) == 2


def test_a_killed_sweep_resumes(run, tmp_path: Path) -> None:
    """One run has a checkpoint, one has only its text, and one does not exist yet."""

    def killed(own: RunFolder) -> Ended:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("train.seed=[0,1,2]", start=Starts(_1=killed))
    assert (tmp_path / "sweep" / "seed=1" / "config.toml").exists()
    (tmp_path / "sweep" / "seed=0" / "evaluation.json").unlink()  # as after a kill at the very end
    (tmp_path / "sweep" / "seed=1" / "config.toml").unlink()
    (tmp_path / "sweep" / "seed=1" / "data" / "manifest.json").unlink()
    starts = Starts()
    result = run("train.seed=[0,1,2]", resume=True, start=starts)
    assert starts.names == ["seed=0", "seed=1", "seed=2"]
    assert [found.status for found in result.runs] == ["done"] * 3


def test_a_sweep_that_was_killed_while_preparing_text_resumes(run, tmp_path: Path) -> None:
    (tmp_path / "sweep" / "text" / "abc").mkdir(parents=True)
    with pytest.raises(UsageError, match="is not empty"):
        run("train.seed=[0]")
    assert run("train.seed=[0]", resume=True).error is None


@pytest.mark.usefixtures("no_models")
def test_a_failed_run_is_reported_and_the_others_continue(run) -> None:
    failing = Starts(at_once, _0=lambda _: Ended(5, "It diverged."), _1=lambda _: Ended(6, "The disk is full."))
    result = run("train.seed=[0,1,2]", start=failing)
    assert [found.status for found in result.runs] == ["diverged", "failed", "done"]
    assert isinstance(result.error, FailedRunsError)
    assert result.error.exit_code == 6
    assert "seed=0: It diverged. (exit code 5)" in str(result.error)
    again = Starts(at_once)
    result = run("train.seed=[0,1,2]", resume=True, start=again)
    assert again.names == ["seed=1"]  # the diverged run is not tried again
    assert [found.status for found in result.runs] == ["diverged", "done", "done"]
    assert result.error is not None
    assert result.error.exit_code == 5


@pytest.mark.usefixtures("no_models")
def test_an_unreadable_text_fails_only_its_own_runs(run, short_text: Path, tmp_path: Path) -> None:
    grid = f'data.source=[["{tmp_path}/nope.txt"],["{short_text}"]]'
    result = run(grid, text=None, start=at_once)
    assert [(found.status, found.exit_code) for found in result.runs] == [("failed", 3), ("done", None)]
    assert "nope.txt" in result.runs[0].error
    with pytest.raises(InputError, match="nope"):
        run("train.seed=[0,1]", text=tmp_path / "nope.txt", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("no_models")
def test_a_stop_is_passed_to_the_runs_and_the_sweep_resumes(run, tmp_path: Path) -> None:
    class Stopping(Ended):
        asked = 0

        def is_over(self) -> bool:
            return self.asked > 0

        def stop(self) -> None:
            self.asked += 1

    job = Stopping(143, "stopped")

    def stopped(own: RunFolder) -> Ended:
        os.kill(os.getpid(), signal.SIGTERM)
        return job

    result = run("train.seed=[0,1,2]", start=Starts(at_once, _1=stopped))
    assert job.asked
    assert [found.status for found in result.runs] == ["done", "unfinished", "unfinished"]
    assert isinstance(result.error, StoppedError)
    assert result.error.exit_code == 143
    assert "1 of 3 runs done" in str(result.error)
    assert run("train.seed=[0,1,2]", resume=True, start=at_once).error is None


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("while_starting", [False, True])
def test_a_second_ctrl_c_stops_the_runs_before_the_sweep_exits(
    run, monkeypatch: pytest.MonkeyPatch, while_starting: bool
) -> None:
    """Immediately after the first one, while the sweep waits or is starting the run."""

    class Left(BaseException):
        pass

    class Training(Ended):
        is_asked = was_asked_when_left = False

        def is_over(self) -> bool:
            if not while_starting and not self.was_asked_when_left:
                twice()
            return self.is_asked

        def stop(self) -> None:
            self.is_asked = True

    job = Training(143, "stopped")

    def twice() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    def leave(code: int) -> None:
        assert code == 130
        job.was_asked_when_left = job.is_asked
        raise Left

    def begun(own: RunFolder) -> Ended:
        if while_starting:
            twice()
        return job

    monkeypatch.setattr("acorn.train.stop.os._exit", leave)
    with pytest.raises(Left):
        run("train.seed=[0,1]", start=Starts(at_once, _0=begun))
    assert job.was_asked_when_left


@pytest.mark.usefixtures("no_models")
def test_an_error_of_the_sweep_itself_leaves_no_run_training(run) -> None:
    class Training(Ended):
        is_asked = False

        def is_over(self) -> bool:
            return self.is_asked

        def stop(self) -> None:
            self.is_asked = True

    def full(own: RunFolder) -> Ended:
        raise ResourceError("The disk is full.")

    job = Training()
    with pytest.raises(ResourceError):
        run("train.seed=[0,1]", jobs=2, start=Starts(_0=lambda _: job, _1=full))
    assert job.is_asked


@pytest.mark.usefixtures("no_models")
def test_a_sweep_waits_for_a_run_of_a_killed_sweep(run, tmp_path: Path) -> None:
    """Its process outlived the sweep and is still training."""
    run("train.seed=[0,1]", start=Starts(_0=lambda _: Ended(6, ""), _1=lambda _: Ended(6, "")))
    lock = FolderLock(tmp_path / "sweep" / "seed=0" / ".lock")
    lock.__enter__()

    def then_free(own: RunFolder) -> Ended:
        at_once(own, [], Path())
        lock.__exit__(None, None, None)
        return Ended()

    starts = Starts(at_once, _1=then_free)
    assert run("train.seed=[0,1]", resume=True, start=starts).error is None
    assert starts.names == ["seed=1", "seed=0"]


@pytest.mark.usefixtures("no_models")
def test_parallel_runs_share_the_cpu_threads(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sweep, "usable_cores", lambda: 9)
    run("train.seed=[0,1]", "train.threads=0", jobs=2, start=at_once)
    assert "threads = 4" in (tmp_path / "sweep" / "seed=0" / "config.toml").read_text()


def test_changed_text_or_settings_are_refused(run, tmp_path: Path, short_text: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text(short_text.read_text())
    run("train.seed=[0]", text=text)
    with pytest.raises(UsageError, match=r"model\.dropout: 0\.0 in the run, 0\.5 now") as refused:
        run("train.seed=[0,1]", "model.dropout=0.5", text=text, resume=True)
    assert "--allow-change" not in str(refused.value)
    text.write_text(short_text.read_text().replace("are", "make"))
    for file in (tmp_path / "sweep" / "text").glob("*/data/*"):
        file.unlink()
    with pytest.raises(UsageError, match="The text has changed since seed=0 was started"):
        run("train.seed=[0,1]", text=text, resume=True)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("kept", ["whole", "gone", "another"])
def test_changed_text_is_refused_without_a_trace_and_missing_text_is_accepted(
    run, tmp_path: Path, short_text: Path, kept: str
) -> None:
    text, texts = tmp_path / "mine.txt", tmp_path / "sweep" / "text"
    text.write_text(short_text.read_text())
    run("train.seed=[0]", text=text, start=at_once)
    (tmp_path / "sweep" / "seed=0" / "checkpoints").mkdir()
    (shards,) = texts.glob("*/data")
    manifest = (shards / "manifest.json").read_bytes()
    if kept == "gone":
        shutil.rmtree(texts)
    if kept == "another":
        (shards / "manifest.json").unlink()  # a hard link to the file of the run
        (shards / "manifest.json").write_text("{}")
    text.write_text(short_text.read_text().replace("are", "make"))
    for _ in range(2):
        with pytest.raises(UsageError, match="The text has changed since seed=0 was started"):
            run("train.seed=[0,1]", text=text, resume=True, start=started_nothing)
        assert (shards / "manifest.json").read_bytes() == manifest
    text.unlink()
    assert run("train.seed=[0,1]", text=text, resume=True, start=at_once).error is None
    seeds = [(tmp_path / "sweep" / f"seed={seed}" / "data" / "manifest.json").read_bytes() for seed in (0, 1)]
    assert seeds == [manifest] * 2


def test_folders_that_are_not_sweeps_are_refused(run, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(UsageError, match="holds no sweep"):
            run("train.seed=[0]", resume=resume, start=started_nothing)
    with pytest.raises(UsageError, match="is a file"):
        run("train.seed=[0]", out=tmp_path / "sweep" / "mine.txt")
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["mine.txt"]
    with pytest.raises(UsageError, match="cannot be"):
        run("train.seed=[0]", jobs=0)


def test_too_little_disk_space_for_all_runs_is_refused(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "free_bytes", lambda _: 1000)
    with pytest.raises(ResourceError, match="The checkpoints of 2 runs need"):
        run("train.seed=[0,1]", start=started_nothing)
