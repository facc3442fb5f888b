"""A complete pretraining run: prepare text, tokenizer and shards if missing, train, write model and report."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acorn.advice import resume_command
from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint, Counters, read_checkpoint, restore
from acorn.config import Config
from acorn.config_files import to_toml
from acorn.data.made_from import read_made_from, write_made_from
from acorn.data.token_shards import TokenSequence
from acorn.errors import DamageError, ResourceError
from acorn.files import read_sealed_json, write_file, write_json
from acorn.folder_lock import FolderLock
from acorn.kernels.cpu import c_code_note
from acorn.model.sizing import size_of
from acorn.origin import stored_bases, to_stored
from acorn.progress import QUIET, Progress
from acorn.run.budget import memory_errors
from acorn.run.ending import PretrainingEnding
from acorn.run.environment import EQUALITY_FIELDS, describe_environment, with_the_start
from acorn.run.finish import finish_run, is_finished
from acorn.run.initial_model import begin_weights, load_initial_model
from acorn.run.peak import ExceededPeak, Peak, machine_peak
from acorn.run.resolve import resolve
from acorn.run.resume import (
    check_steps_left,
    merge_configs,
    note_changes,
    note_inequality,
    own_config,
    resumed_with,
    with_earlier_choices,
    with_known_shards,
)
from acorn.run.start import (
    check_config,
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
from acorn.run.text import fingerprint_of, text_to_shards
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
from acorn.train.watcher import Unwatched, Watcher
from acorn.train.windows import RunText, Windows


@dataclass(frozen=True)
class PretrainResult:
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


def pretrain(
    config: Config | None,
    out: Path,
    *,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    overrides: Sequence[str] = (),
    command_line: str = "",
    watcher: Watcher | None = None,
    progress: Progress = QUIET,
) -> PretrainResult:
    """Trains a model from text, start to finish, in the run folder `out`.

    Args:
        config: the run's settings; None: those in the run folder's config.toml, with `overrides`.
        resume: start the run, or resume it from its newest intact checkpoint.
        allow_change: keys that may differ from the run's own config when it is resumed.
        overrides: used only where `config` is None.

    Raises:
        UsageError: the folder is in use or not empty, or settings do not fit.
        InputError: the text, tokenizer or shards cannot be used.
        DamageError: there are checkpoints, but none is intact.
        StoppedError: a signal stopped the run, after a checkpoint was saved.
        DivergedError: training diverged, and going back to earlier checkpoints did not help.
        ResourceError: disk or memory ran out, or would.
    """
    run = RunFolder(out)
    check_name(run)
    is_given = config is not None
    if config is not None:
        check_config(config)
    missing = missing_folders(run.root)
    check_folder(run, resume)
    with FolderLock(run.lock), nothing_left_behind(run, missing):
        check_folder(run, resume)  # again: another process may have taken the lock first
        clear_leftovers(run)
        found = newest_whole_checkpoint(run, progress) if resume else None
        if config is None:
            config = own_config(run, found, overrides)
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
            return _run(config, run, initial, folders, command_line, watcher or Unwatched(), progress)
        checkpoint = read_checkpoint(found)
        counters = checkpoint.counters
        if is_given:
            config = with_known_shards(config, checkpoint.config, run)
        config, changed = merge_configs(checkpoint.config, config, allow_change)
        check_steps_left(config, counters)
        is_written = is_finished(run, counters.step, PretrainingEnding.missing)
        finished = not changed and is_written and is_done(config.train, counters)
        made_from = check_unchanged(run, config, folders, QUIET if finished else progress)
        if finished:
            tidy(run, config, counters, progress.note)
            return _result(run, counters.step, was_complete=True)
        words = resumed_with(checkpoint.config, config)
        check_machine(config, checkpoint.config, functools.partial(resume_command, run.root, *words))
        note_changes(changed, counters, progress)
        if made_from is not None:
            write_made_from(run, made_from)  # with the files' current times, so that a copied text is read only once
        return _run(config, run, checkpoint, folders, command_line, watcher or Unwatched(), progress)


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
    config: Config,
    run: RunFolder,
    origin: Checkpoint | LoadedModel | None,
    folders: Sequence[Path],
    command_line: str,
    watcher: Watcher,
    progress: Progress,
) -> PretrainResult:
    """Trains from `origin`: a checkpoint of the run, an initial model, or None for new weights."""
    checkpoint = origin if isinstance(origin, Checkpoint) else None
    initial = origin if isinstance(origin, LoadedModel) else None
    tokenizer, shards = text_to_shards(config, run, checkpoint, progress, initial, folders)
    config, runtime = resolve(config, run.root, tokenizer.vocab_size, shards.count("train").tokens)
    known = checkpoint.resolved if checkpoint else {}
    bases = bases_of(initial) if initial else stored_bases(known, config.train.init_from)
    environment = (
        describe_environment(runtime, command_line)
        | to_stored(bases)
        | {"windows_per_rank": {"0": (shards.count("train").tokens - 1) // config.model.block_size}}
    )
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
        network, counters = _build(config, run, runtime, origin, shards.tokens("train"), progress)
        peak = machine_peak(runtime)
        environment["peak"] = {"flops_per_second": peak.flops, "of": peak.of}
        write_file(run.config, to_toml(config))  # only after the checkpoint was found to fit it
        write_json(run.environment, environment)
        logs = stack.enter_context(open_logs(run, config, counters, watcher, progress.note))
        note_inequality(config, checkpoint, environment, counters, progress)
        resolved = {key: environment[key] for key in EQUALITY_FIELDS} | {
            "micro_batch_size": config.train.micro_batch_size,
            "strategy": config.parallel.strategy,
            "tokenizer": tokenizer.fingerprint,
            "data": fingerprint_of(shards),
            **to_stored(bases),
        }
        size = size_of(config.model)
        progress.note(
            f"{size.parameters:,} parameters; {shards.count('train').tokens:,} training tokens; "
            f"{config.train.batch_size * config.model.block_size:,} tokens per step"
        )
        progress.note(f'"% of peak" is relative to {peak}, measured once on this machine.')
        if 0 < config.train.eval_tokens < shards.count("valid").tokens - 1 and config.train.eval_every:
            progress.note(
                f"Validation during training uses the first {config.train.eval_tokens:,} of "
                f"{shards.count('valid').tokens - 1:,} tokens (train.eval_tokens)."
            )

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
            resume_command(run.root),
            peak.flops,
            ExceededPeak(peak, runtime, note_peak),
        )
        text = RunText(tokenizer, shards)
        loop = Loop(setup, network, Windows(text, config), counters, logs, progress)
        with memory_errors(config, counters):
            loop.train()
            with uncompiled(runtime), finishing(run.root, counters.step, setup.command, progress) as told:
                finish_run(setup, network.model, PretrainingEnding(setup, text), counters, told)
    return _result(run, counters.step, was_complete=False)


def _build(
    config: Config,
    run: RunFolder,
    runtime: Runtime,
    origin: Checkpoint | LoadedModel | None,
    tokens: TokenSequence,
    progress: Progress,
) -> tuple[Network, Counters]:
    """Network and counters: new or restored from a checkpoint. Of an initial model, only the weights are taken."""
    model, optimizers = build_network(config, runtime)
    initial = origin if isinstance(origin, LoadedModel) else None
    network = Network(
        model, optimizers, functools.partial(begin_weights, run, model, config, tokens, initial, progress)
    )
    if isinstance(origin, Checkpoint):
        restore(model, optimizers, origin)
        return network, origin.counters
    network.begin()
    return network, initial_counters(config.train.steps, runtime.precision)


def _environment_before(run: RunFolder) -> dict[str, Any]:
    """environment.json of an earlier session; empty if missing or damaged, because nothing depends on it."""
    try:
        before = json.loads(run.environment.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return before if isinstance(before, dict) else {}


def _result(run: RunFolder, step: int, *, was_complete: bool) -> PretrainResult:
    figures = {split: value for split, value in read_sealed_json(run.evaluation).items() if isinstance(value, dict)}
    return PretrainResult(run.root, step, figures, was_complete)
