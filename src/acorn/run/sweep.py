"""A sweep: the runs of a grid, one after another or several at a time. Each text is prepared only once.

    DIR/
      sweep.json        the runs and their settings, and the errors of those that failed
      text/KEY/         a prepared text: tokenizer and shards, as in a run before its first step
      NAME/             an ordinary run folder for each run
      logs/NAME.log     the messages of the run
      report.html

Each run is its own process (`acorn pretrain --resume --out DIR/NAME`), so that a crash does not affect the others. The
sweep keeps no state in memory alone: the run folders show what is done, so it can be killed at any moment and resumed.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from acorn.config import Config
from acorn.config_files import differences, flatten, load_run_config, override_of, with_values
from acorn.counting import counted
from acorn.data.made_from import shards_folder
from acorn.data.token_shards import TokenShards
from acorn.errors import AcornError, DamageError, ResourceError, StoppedError, UsageError
from acorn.files import free_bytes, make_folders, read_sealed_json, write_sealed_json
from acorn.folder_lock import FolderLock
from acorn.progress import QUIET, Progress
from acorn.report.run_facts import was_undisturbed
from acorn.report.sweep_figures import SweepRun
from acorn.run.budget import disk_needed
from acorn.run.ending import PretrainingEnding
from acorn.run.finish import is_finished
from acorn.run.grid import GridRun
from acorn.run.process import Job, RunProcess, step_and_share
from acorn.run.resume import merge_configs
from acorn.run.shared_text import begin_run, changes_of_text, has_shards_of, prepare_text, restore_text, text_key
from acorn.run.start import check_config, check_fits, check_machine
from acorn.run.sweep_folder import Failure, SweepFolder, check_sweep_folder, nothing_left_of_sweep, read_failures
from acorn.run_folder import SWEEP_FORMAT, RunFolder
from acorn.runtime.device import usable_cores
from acorn.train.stop import StopRequest

POLL_SECONDS = 0.2
DIVERGED_EXIT_CODE = 5
"""Exit code of a run that diverged: that is a result of its settings, so it is not tried again."""

Start = Callable[[RunFolder, Sequence[str], Path], Job]


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep.

    Attributes:
        stopped_by: the number of the signal that stopped it early.
    """

    folder: SweepFolder
    runs: list[SweepRun]
    stopped_by: int | None = None

    @property
    def error(self) -> AcornError | None:
        """The error that the sweep ends with: it was stopped, or runs failed. None if all runs are done."""
        done = sum(run.status == "done" for run in self.runs)
        if self.stopped_by is not None:
            return StoppedError(
                self.stopped_by,
                f"Stopped: {done} of {counted(len(self.runs), 'run')} done; those in progress have saved and stopped.",
                where=str(self.folder.root),
                fix="the same command with --resume continues",
            )
        return FailedRunsError(self.folder, self.runs) if done < len(self.runs) else None


class FailedRunsError(AcornError):
    """Runs of a sweep failed. The exit code is the largest of theirs."""

    def __init__(self, folder: SweepFolder, runs: Sequence[SweepRun]) -> None:
        failed = [run for run in runs if run.status != "done"]
        lines = [
            f"  - {run.name}: {run.error} (exit code {run.exit_code})"
            if run.exit_code
            else f"  - {run.name}: not finished, no error reported"
            for run in failed
        ]
        again = "; the same command with --resume tries again, except runs that diverged"
        super().__init__(
            f"{len(failed)} of {counted(len(runs), 'run')} failed:\n" + "\n".join(lines),
            where=str(folder.root),
            fix=f"see {folder.log('NAME')}" + ("" if all(run.status == "diverged" for run in failed) else again),
        )
        self.exit_code = max(run.exit_code or 1 for run in failed)


def run_sweep(
    grid: Sequence[GridRun],
    out: Path,
    *,
    jobs: int = 1,
    resume: bool = False,
    start: Start = RunProcess,
    progress: Progress = QUIET,
) -> SweepResult:
    """Runs the grid in the folder `out`. Runs that are already done there are skipped.

    Args:
        jobs: runs at a time. Each gets an equal share of the CPU's cores, unless train.threads is set.
        start: starts the process of a run, given its folder, overrides of its config and a file for its messages.

    Raises:
        UsageError: the folder is in use or holds something else, a setting is wrong, or differs from a started run's.
        InputError, DamageError, ...: no text of the grid can be prepared.
        ResourceError: the disk has too little space for all the checkpoints.
    """
    if jobs < 1:
        raise UsageError(f"There cannot be {jobs} runs at a time.", where="--jobs", fix="give 1 or more")
    for run in grid:
        check_config(run.config)
        check_machine(run.config)
    folder = SweepFolder(out)
    check_sweep_folder(folder, resume)
    with FolderLock(folder.lock), nothing_left_of_sweep(folder):
        check_sweep_folder(folder, resume)
        sweep = _Sweep(grid, folder, jobs, start, progress)
        sweep.check_runs()
        sweep.prepare_texts()
        sweep.check_disk()
        stopped_by = sweep.run_all()
        return SweepResult(folder, [sweep.outcome(run) for run in grid], stopped_by)


class _Sweep:
    """One session of a sweep. `failures` comes from sweep.json; all else is read from the run folders."""

    def __init__(
        self, grid: Sequence[GridRun], folder: SweepFolder, jobs: int, start: Start, progress: Progress
    ) -> None:
        self.grid, self.folder, self.jobs, self.start, self.progress = grid, folder, jobs, start, progress
        self.failures = read_failures(folder)
        self.overrides: dict[str, list[str]] = {}
        self._done: set[str] = set()  # runs whose final model was checked

    def check_runs(self) -> None:
        """Finds what the command line changes for started runs, and refuses new runs that cannot start.

        Raises:
            UsageError: a started run cannot change these settings, or a vocabulary size is not the tokenizer's.
            InputError, DamageError, ResourceError: a tokenizer, prepared shards or the disk of a new run will not do.
        """
        for run in self.grid:
            own = self.folder.run(run.name)
            self.overrides[run.name] = []
            with contextlib.suppress(DamageError):  # not started; or damaged, which the run itself will report
                stored = load_run_config(own.config)
                try:
                    changed = differences(stored, merge_configs(stored, run.config)[0])
                except UsageError as error:
                    raise UsageError(
                        f"{own.root}: {error.what}",
                        where="the command line, compared with config.toml of the run",
                        fix="use the run's settings, or start a new sweep with --out",
                    ) from None
                self.overrides[run.name] = [override_of(key, new) for key, (_, new) in changed.items() if key != "name"]
            if not (own.config.exists() or run.config.train.init_from):
                check_fits(run.config, own, None)

    def prepare_texts(self) -> None:
        """Prepares each distinct text once. Runs whose text cannot be prepared fail.

        Raises:
            UsageError: the text has changed since runs were started; nothing is written.
            AcornError: no text can be prepared.
        """
        texts = {text_key(run.config): run.config for run in reversed(self.grid)}
        errors: dict[str, AcornError] = {}
        for key, config in reversed(texts.items()):
            runs = [run for run in self.grid if text_key(run.config) == key]
            if all(self.is_over(run) for run in runs):
                continue
            self._check_text_unchanged(config, runs)
            try:
                prepare_text(config, self.folder.texts / key, self.progress)
            except AcornError as error:
                errors[key] = error
                continue
            self._check_same_text(runs)
        if errors and len(errors) == len(texts):
            raise next(iter(errors.values()))
        self.failures = {name: failure for name, failure in self.failures.items() if self._stands(name, failure)}
        for run in self.grid:
            if fault := errors.get(text_key(run.config)):
                self.failures[run.name] = Failure(fault.exit_code, fault.what)
                self.progress.note(f"{run.name} cannot be run: {fault.what} ({fault.where})")
        self._write_record()

    def _check_text_unchanged(self, config: Config, runs: Sequence[GridRun]) -> None:
        """Refuses to prepare a text that differs from that of started runs, before anything is written."""
        begun = next((run for run in runs if self._is_begun(run)), None)
        if begun is None:
            return
        text = self.folder.text(config)
        restore_text(config, text, self.folder.run(begun.name))
        if changed := changes_of_text(config, text):
            raise UsageError(
                f"The text has changed since {begun.name} was started:\n"
                + "\n".join(f"  - {line}" for line in changed),
                where=", ".join(config.data.source),
                fix="restore it, or start a new sweep with --out; if it is moved away, the sweep continues with its "
                "own token shards",
            )

    def _is_begun(self, run: GridRun) -> bool:
        return self.folder.run(run.name).checkpoints.exists() and not run.config.data.shards

    def _check_same_text(self, runs: Sequence[GridRun]) -> None:
        """Refuses to continue if new runs would get a different text than the started runs have."""
        for run in runs:
            if self._is_begun(run) and not has_shards_of(self.folder.run(run.name), self.folder.text(run.config)):
                raise UsageError(
                    f"The text has changed since {run.name} was started.",
                    where=", ".join(run.config.data.source),
                    fix="restore it, or start a new sweep with --out",
                )

    def check_disk(self) -> None:
        """Refuses a grid whose checkpoints do not fit on the disk, before the first one is written."""
        todo, needed = self._todo(), 0
        for run in todo:
            with contextlib.suppress(AcornError):  # the run itself will report it
                vocab_size = run.config.model.vocab_size or run.config.tokenizer.vocab_size
                config = with_values(run.config, {"model.vocab_size": vocab_size})
                needed += disk_needed(config, self.folder.run(run.name).root)
        free = free_bytes(self.folder.root)
        if needed > free:
            raise ResourceError(
                f"The checkpoints of {counted(len(todo), 'run')} need {needed:,} more bytes; only {free:,} are free.",
                where=str(self.folder.root),
                fix="free disk space, choose a folder on another disk with --out, or lower checkpoint.keep",
            )

    def run_all(self) -> int | None:
        """Runs what is not over yet. Returns the number of the signal that stopped the sweep, if one did."""
        todo = deque(self._todo())
        over = len(self.grid) - len(todo)
        if todo:
            at_a_time = f", {self.jobs} at a time" if self.jobs > 1 else ""
            runs = counted(len(self.grid), "run")
            self.progress.note(f"{len(todo)} of {runs} to do{at_a_time}, in {self.folder.root}.")
            if self.jobs > 1:
                self.progress.note(
                    f"Each run has {self._threads()} of {usable_cores()} CPU threads, unless train.threads is set. "
                    "With a different number of threads, the last bits of its results differ."
                )
        running: dict[str, tuple[GridRun, Job]] = {}
        waited_for: set[str] = set()

        def stop_runs() -> None:
            for _, job in running.values():
                job.stop()

        with StopRequest(stop_runs) as stop, contextlib.ExitStack() as on_error:
            on_error.callback(stop_runs)  # an error here must leave no run behind; normally none is running by then
            is_told = False
            while todo or running:
                if stop.signal_number is not None:
                    todo.clear()
                    stop_runs()
                    if running and not is_told:
                        self.progress.note(
                            f"Stopping: waiting for {', '.join(running)} to save. A second Ctrl-C exits without "
                            "waiting; the runs still save and stop."
                        )
                        is_told = True
                over += self._collect(running, todo, stop)
                for _ in range(len(todo) if len(running) < self.jobs else 0):
                    if stop.signal_number is not None:
                        break
                    run = todo.popleft()
                    if self._is_in_use(run):  # by a process that outlived an earlier sweep
                        todo.append(run)
                        if run.name not in waited_for:
                            self.progress.note(f"Waiting: an earlier process is still training {run.name}.")
                            waited_for.add(run.name)
                        continue
                    if self.is_over(run):
                        over += 1
                        continue
                    with stop.held():  # or `stop_runs` might not know the new process
                        running[run.name] = (run, self._begin(run))
                    if len(running) == self.jobs:
                        break
                self._tell(running, over)
                if (running and not any(job.is_over() for _, job in running.values())) or (todo and not running):
                    time.sleep(POLL_SECONDS)
        self.progress.end("runs")
        return stop.signal_number

    def _todo(self) -> list[GridRun]:
        return [run for run in self.grid if not self.is_over(run) and run.name not in self.failures]

    def _threads(self) -> int:
        """CPU threads of a run that does not set them."""
        return max(1, usable_cores() // self.jobs)

    def is_over(self, run: GridRun) -> bool:
        """Whether there is nothing left to do for `run`."""
        return self.outcome(run).status in ("done", "diverged") and not self.overrides[run.name]

    def outcome(self, run: GridRun) -> SweepRun:
        """The state of `run`, read from its folder."""
        own = self.folder.run(run.name)
        evaluation: dict[str, Any] = {}
        with contextlib.suppress(DamageError):  # there is none yet, or it will be written again
            evaluation = read_sealed_json(own.evaluation)
        step = evaluation.get("step")
        figures = {split: value for split, value in evaluation.items() if isinstance(value, dict)}
        found = SweepRun(run.name, own.root, run.settings, "unfinished", origin=run.origin, given=flatten(run.config))
        if failure := self.failures.get(run.name):
            status: Literal["diverged", "failed"] = "diverged" if failure.exit_code == DIVERGED_EXIT_CODE else "failed"
            return replace(found, status=status, exit_code=failure.exit_code, error=failure.error)
        if step is not None and (run.name in self._done or is_finished(own, step, PretrainingEnding.missing)):
            self._done.add(run.name)
            text, clean = self._valid_text(run, own)
            undisturbed = was_undisturbed(own, step)
            return replace(
                found,
                status="done",
                step=step,
                evaluation=figures,
                text=text,
                clean=clean,
                undisturbed=undisturbed,
            )
        return found

    def _valid_text(self, run: GridRun, own: RunFolder) -> tuple[str, str]:
        """The digest of the validation text and its cleaning, from the shards; empty if they cannot be read."""
        try:
            shards = TokenShards.open(shards_folder(own, run.config.data.shards))
        except AcornError:  # moved away, or damaged: the run is done nevertheless
            return "", ""
        return str(shards.manifest["splits"].get("valid", {}).get("text_sha256", "")), shards.clean

    def _stands(self, name: str, failure: Failure) -> bool:
        """Whether a recorded failure is final: the run diverged, and its folder and settings are still the same."""
        is_begun = self.folder.run(name).config.exists()
        return failure.exit_code == DIVERGED_EXIT_CODE and is_begun and not self.overrides.get(name)

    def _begin(self, run: GridRun) -> Job:
        """Starts or resumes `run` in its own process."""
        own, text = self.folder.run(run.name), self.folder.text(run.config)
        is_new = not own.config.exists()
        if is_new or not (own.checkpoints.exists() or run.config.data.shards or has_shards_of(own, text)):
            config = run.config
            if self.jobs > 1 and not config.train.threads:
                config = with_values(config, {"train.threads": self._threads()})
            begin_run(config, own, text)
        log = self.folder.log(run.name)
        make_folders(log.parent)
        return self.start(own, self.overrides[run.name], log)

    def _collect(self, running: dict[str, tuple[GridRun, Job]], todo: deque[GridRun], stop: StopRequest) -> int:
        """Records the runs that have ended. Returns how many of them are over."""
        over = 0
        for run, job in [(run, job) for run, job in running.values() if job.is_over()]:
            del running[run.name]
            self.progress.end(run.name)
            code = job.exit_code
            if code and stop.signal_number is not None:  # it was asked to stop; --resume continues it
                continue
            if code == UsageError.exit_code and self._is_in_use(run):  # an earlier process had just started it
                todo.append(run)
                continue
            over += 1
            self.overrides[run.name] = []
            if code:
                self.failures[run.name] = Failure(code, job.error)
                self.progress.note(f"{run.name} failed (exit code {code}): {job.error}")
                self._write_record()
        return over

    def _is_in_use(self, run: GridRun) -> bool:
        own = self.folder.run(run.name)
        if not own.root.exists():
            return False
        try:
            with FolderLock(own.lock):
                return False
        except UsageError:
            return True

    def _tell(self, running: Mapping[str, tuple[GridRun, Job]], over: int) -> None:
        self.progress.at("runs", over, len(self.grid), "runs")
        for name, (run, _) in running.items():
            step, share = step_and_share(self.folder.run(name), run.config)
            self.progress.at(name, step, step / share if share else 0, "steps")

    def _write_record(self) -> None:
        record = {
            "format": SWEEP_FORMAT,
            "version": 1,
            "runs": {run.name: {"settings": dict(run.settings)} for run in self.grid},
            "failures": {name: asdict(failure) for name, failure in self.failures.items()},
        }
        write_sealed_json(self.folder.record, record)
