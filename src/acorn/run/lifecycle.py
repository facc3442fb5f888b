"""The life of a run, from an empty folder or its last checkpoint to its report: the same for every kind of run.

What differs between kinds is a `RunKind`: `run/pretrain.py` and `run/finetune.py` each have one.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint, Counters, read_checkpoint, restore
from acorn.config import Config
from acorn.config_files import to_toml
from acorn.data.made_from import read_made_from, write_made_from
from acorn.errors import DamageError, ResourceError
from acorn.files import read_sealed_json, write_file, write_json
from acorn.folder_lock import FolderLock
from acorn.kernels.cpu import c_code_note
from acorn.model.gpt import GPT
from acorn.model.label_head import HeadSpec
from acorn.model.lora import LoraSpec
from acorn.origin import stored_bases, to_stored
from acorn.progress import QUIET, Progress
from acorn.run.budget import memory_errors
from acorn.run.ending import Ending
from acorn.run.environment import EQUALITY_FIELDS, describe_environment, with_the_start
from acorn.run.finish import finish_run, is_finished
from acorn.run.initial_model import load_initial_model
from acorn.run.peak import ExceededPeak, Peak, machine_peak
from acorn.run.resume import (
    check_length_left,
    merge_configs,
    note_changes,
    note_inequality,
    own_config,
    resumed_with,
    with_earlier_choices,
    with_known_shards,
)
from acorn.run.start import (
    check_fits,
    check_folder,
    check_machine,
    check_name,
    check_not_begun,
    clear_leftovers,
    missing_folders,
    nothing_left_behind,
)
from acorn.run.start_folder import PATH_KEYS, start_folders
from acorn.run.unchanged import check_unchanged
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.train.logs import open_logs
from acorn.train.loop import Loop
from acorn.train.network import Network, build_network
from acorn.train.parallel import uncompiled
from acorn.train.saving import tidy
from acorn.train.schedule import is_done
from acorn.train.setup import Setup
from acorn.train.step import initial_counters
from acorn.train.stop import finishing
from acorn.train.training_data import TrainingData
from acorn.train.watcher import Unwatched, Watcher


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        folder: the run folder.
        step: optimizer steps done, over all resumes.
        evaluation: split -> the fields of `acorn evaluate --json`.
        was_complete: the run was complete already; nothing was written.
    """

    folder: Path
    step: int
    evaluation: dict[str, Any]
    was_complete: bool


@dataclass(frozen=True)
class Prepared:
    """What a run trains on, and what follows from it.

    Attributes:
        config: with every choice made.
        begin: gives a new network the weights that the run begins with.
        ending: how the run ends, for its setup.
        resolved: what bit-identity depends on beside the machine; stored in every checkpoint.
        environment: further fields of environment.json.
        notes: what is said of it before the first step.
        head: the label head; None: a language model.
        lora: what is trained beside frozen weights; None: all weights are trained.
    """

    config: Config
    runtime: Runtime
    data: TrainingData
    begin: Callable[[GPT], None]
    ending: Callable[[Setup], Ending]
    resolved: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    head: HeadSpec | None = None
    lora: LoraSpec | None = None


class RunKind(Protocol):
    """What differs between kinds of runs."""

    def check(self, config: Config) -> None:
        """Refuses what no such run can be made of, before anything is touched.

        Raises:
            UsageError: it says what is wrong.
        """

    def check_stored(self, config: Config, run: RunFolder) -> None:
        """Refuses to resume a run of another kind.

        Args:
            config: of the run.

        Raises:
            UsageError: it is one.
        """

    def resume_command(self, run: RunFolder, *more: str) -> str:
        """The command that resumes a run, with further words."""

    def missing(self, run: RunFolder) -> list[str]:
        """As `Ending.missing` of this kind."""

    def prepare(
        self,
        config: Config,
        run: RunFolder,
        checkpoint: Checkpoint | None,
        initial: LoadedModel | None,
        folders: Sequence[Path],
        progress: Progress,
    ) -> Prepared:
        """Makes the run's data, or finds it in its folder, and makes every choice.

        Args:
            checkpoint: that the run resumes from; None: it starts.
            initial: the model that a new run starts from.
            folders: where relative paths of `config` are looked for.
        """


def start_or_resume(
    kind: RunKind,
    config: Config | None,
    out: Path,
    *,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    overrides: Sequence[str] = (),
    command_line: str = "",
    watcher: Watcher | None = None,
    progress: Progress = QUIET,
) -> RunResult:
    """Trains a run in the folder `out`, start to finish.

    Args:
        config: the run's settings; None: those in the run folder's config.toml, with `overrides`.
        resume: start the run, or resume it from its newest intact checkpoint.
        allow_change: keys that may differ from the run's own config when it is resumed.
        overrides: used only where `config` is None.

    Raises:
        UsageError: the folder is in use or not empty, or settings do not fit.
        InputError: the data or the tokenizer cannot be used.
        DamageError: there are checkpoints, but none is intact.
        StoppedError: a signal stopped the run, after a checkpoint was saved.
        DivergedError: training diverged, and going back to earlier checkpoints did not help.
        ResourceError: disk or memory ran out, or would.
    """
    run = RunFolder(out)
    check_name(run)
    is_given = config is not None
    if config is not None:
        kind.check(config)
    missing = missing_folders(run.root)
    trains_on_text = config.trains_on_text if config else None
    check_folder(run, resume, trains_on_text=trains_on_text)
    with FolderLock(run.lock), nothing_left_behind(run, missing):
        check_folder(run, resume, trains_on_text=trains_on_text)  # again: another process may have taken the lock first
        clear_leftovers(run)
        found = newest_whole_checkpoint(run, progress) if resume else None
        if config is None:
            config = own_config(run, found, overrides)
            kind.check_stored(config, run)
        folders = _folders(run, overrides, is_given=is_given, is_new=found is None)
        if found is None:
            check_not_begun(run)
            check_machine(config)
            if is_given:
                config = with_known_shards(config, config, run)
            initial = None
            if config.train.init_from:
                config, initial = load_initial_model(config, progress, folders)
            config = with_earlier_choices(config, run, progress)
            check_fits(config, run, initial, folders)
            return _run(kind, config, run, initial, folders, command_line, watcher or Unwatched(), progress)
        checkpoint = read_checkpoint(found)
        kind.check_stored(checkpoint.config, run)
        counters = checkpoint.counters
        if is_given:
            config = with_known_shards(config, checkpoint.config, run)
        config, changed = merge_configs(checkpoint.config, config, allow_change)
        check_length_left(config, checkpoint.config, counters)
        is_written = is_finished(run, counters.step, kind.missing)
        finished = not changed and is_written and is_done(config.train, counters)
        made_from = check_unchanged(run, config, folders, QUIET if finished else progress)
        if finished:
            tidy(run, config, counters, progress.note)
            return _result(run, counters.step, was_complete=True)
        words = resumed_with(checkpoint.config, config)
        check_machine(config, checkpoint.config, functools.partial(kind.resume_command, run, *words))
        note_changes(changed, counters, progress)
        if made_from is not None:
            write_made_from(run, made_from)  # with the files' current times, so that a copied text is read only once
        return _run(kind, config, run, checkpoint, folders, command_line, watcher or Unwatched(), progress)


def _folders(run: RunFolder, overrides: Sequence[str], *, is_given: bool, is_new: bool) -> list[Path]:
    """Folders in which relative paths of the run's config are looked up."""
    names_paths = is_given or any(override.startswith(PATH_KEYS) for override in overrides)
    if is_given and is_new:
        return [Path.cwd()]
    known = None
    with contextlib.suppress(DamageError):  # reported where the text is compared
        known = read_made_from(run)
    return start_folders(run, known, named_now=names_paths)


def _run(
    kind: RunKind,
    config: Config,
    run: RunFolder,
    origin: Checkpoint | LoadedModel | None,
    folders: Sequence[Path],
    command_line: str,
    watcher: Watcher,
    progress: Progress,
) -> RunResult:
    """Trains from `origin`: a checkpoint of the run, an initial model, or None for new weights."""
    checkpoint = origin if isinstance(origin, Checkpoint) else None
    initial = origin if isinstance(origin, LoadedModel) else None
    prepared = kind.prepare(config, run, checkpoint, initial, folders, progress)
    config, runtime = prepared.config, prepared.runtime
    known = checkpoint.resolved if checkpoint else {}
    bases = bases_of(initial) if initial else stored_bases(known, config.train.init_from)
    environment = describe_environment(runtime, command_line) | to_stored(bases) | prepared.environment
    if checkpoint:
        environment = with_the_start(environment, _environment_before(run))
    for choice in runtime.choices:
        if checkpoint is None or choice.has_remark:  # a resumed run keeps a precision that is slow here
            progress.note(str(choice))
    if line := c_code_note(runtime):
        progress.note(line)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime.start())
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        network, counters = _build(prepared, checkpoint)
        peak = machine_peak(runtime)
        environment["peak"] = {"flops_per_second": peak.flops, "of": peak.of}
        write_file(run.config, to_toml(config))  # only after the checkpoint was found to fit it
        write_json(run.environment, environment)
        logs = stack.enter_context(open_logs(run, config, counters, watcher, progress.note))
        note_inequality(config, checkpoint, environment, counters, progress)
        resolved = {key: environment[key] for key in EQUALITY_FIELDS} | {
            "micro_batch_size": config.train.micro_batch_size,
            "strategy": config.parallel.strategy,
            **prepared.resolved,
            **to_stored(bases),
        }
        for note in (*prepared.notes, f'"% of peak" is relative to {peak}, measured once on this machine.'):
            progress.note(note)

        def note_peak(higher: Peak) -> None:
            environment["peak"] = {"flops_per_second": higher.flops, "of": higher.of}
            with contextlib.suppress(ResourceError):  # a missing figure must not end the run
                write_json(run.environment, environment)
            watcher.note(
                "Training exceeds the peak stored for this machine, which was busy when it was measured. "
                f'"% of peak" is now relative to {higher}.'
            )

        setup = Setup(
            run,
            config,
            runtime,
            resolved,
            kind.resume_command(run),
            peak.flops,
            ExceededPeak(peak, runtime, note_peak),
        )
        loop = Loop(setup, network, prepared.data, counters, logs, progress)
        with memory_errors(config, counters):
            loop.train()
            with uncompiled(runtime), finishing(run.root, counters.step, setup.command, progress) as told:
                finish_run(setup, network.model, prepared.ending(setup), counters, told)
    return _result(run, counters.step, was_complete=False)


def _build(prepared: Prepared, checkpoint: Checkpoint | None) -> tuple[Network, Counters]:
    """Network and counters: new, or restored from a checkpoint."""
    config, runtime = prepared.config, prepared.runtime
    model, optimizers = build_network(config, runtime, head=prepared.head, lora=prepared.lora)
    network = Network(model, optimizers, functools.partial(prepared.begin, model))
    if checkpoint:
        restore(model, optimizers, checkpoint)
        return network, checkpoint.counters
    network.begin()
    return network, initial_counters(config.train.steps, runtime.precision)


def _environment_before(run: RunFolder) -> dict[str, Any]:
    """environment.json of an earlier session; empty if missing or damaged, because nothing depends on it."""
    try:
        before = json.loads(run.environment.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return before if isinstance(before, dict) else {}


def _result(run: RunFolder, step: int, *, was_complete: bool) -> RunResult:
    figures = {split: value for split, value in read_sealed_json(run.evaluation).items() if isinstance(value, dict)}
    return RunResult(run.root, step, figures, was_complete)
