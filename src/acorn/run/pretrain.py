"""A whole pretraining run: text, tokenizer and shards where they are missing, the loop, the model, the report."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acorn.checkpoint.bases import bases_of
from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint, Counters, read_checkpoint, restore
from acorn.config import Config
from acorn.config_files import to_toml, with_values
from acorn.data.made_from import write_made_from
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenSequence
from acorn.errors import UsageError
from acorn.files import read_sealed_json, write_file, write_json
from acorn.folder_lock import FolderLock
from acorn.kernels.cpu import c_code_note
from acorn.model.sizing import size_of
from acorn.origin import stored_bases, to_stored
from acorn.progress import QUIET, Progress
from acorn.run.budget import check_disk, check_memory, expected_seconds, memory_errors, micro_batch_size_of
from acorn.run.environment import EQUALITY, changed_since, describe_environment
from acorn.run.finish import finish_run, is_finished
from acorn.run.initial_model import begin_weights, load_initial_model
from acorn.run.peak import machine_peak
from acorn.run.resolve import choose_runtime
from acorn.run.resume import MAY_CHANGE, merge_configs, own_config, with_earlier_choices, with_known_shards
from acorn.run.start import (
    check_config,
    check_fits,
    check_folder,
    check_machine,
    check_name,
    check_not_begun,
    check_vocab_size,
    clear_leftovers,
    missing_folders,
    nothing_left_behind,
)
from acorn.run.text import fingerprint_of, text_to_shards
from acorn.run.unchanged import check_unchanged
from acorn.run_folder import RunFolder
from acorn.runtime.device import Runtime
from acorn.runtime.memory import available_memory
from acorn.train.logs import open_logs
from acorn.train.loop import Loop
from acorn.train.network import Network, build_network
from acorn.train.parallel import uncompiled
from acorn.train.saving import tidy
from acorn.train.schedule import rate_factor
from acorn.train.setup import Setup
from acorn.train.step import initial_counters
from acorn.train.stop import finishing
from acorn.train.watcher import Unwatched, Watcher
from acorn.train.windows import RunText, Windows


@dataclass(frozen=True)
class PretrainResult:
    """Where a run ended.

    Attributes:
        evaluation: split -> the fields of `acorn evaluate --json`.
        was_complete: the run had ended before; nothing was written.
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
        config: what to do; None: what the run folder's own config.toml says, with `overrides`.
        resume: start, or go on from the newest whole checkpoint.
        allow_change: keys that may differ from the run's own config when it goes on.
        overrides: used only where `config` is None.

    Raises:
        UsageError: the folder is in use or not empty, or settings do not fit.
        InputError: the text, tokenizer or shards cannot be used.
        DamageError: there are checkpoints, but none is whole.
        StoppedError, DivergedError, ResourceError: as `Loop.train`.
    """
    run = RunFolder(out)
    check_name(run)
    is_given = config is not None
    if config is not None:
        check_config(config)
    missing = missing_folders(run.root)
    check_folder(run, resume)
    with FolderLock(run.lock), nothing_left_behind(run, missing):
        check_folder(run, resume)  # again: another process may have been quicker to the lock
        clear_leftovers(run)
        found = newest_whole_checkpoint(run, progress) if resume else None
        if config is None:
            config = own_config(run, found, overrides)
        if found is None:
            check_not_begun(run)
            check_machine(config)
            if is_given:
                config = with_known_shards(config, config, run)
            initial = None
            if config.train.init_from:
                config, initial = load_initial_model(config, progress)
            config = with_earlier_choices(config, run, progress)
            check_fits(config, run, initial)
            return _run(config, run, initial, command_line, watcher or Unwatched(), progress)
        checkpoint = read_checkpoint(found)
        if is_given:
            config = with_known_shards(config, checkpoint.config, run)
        config, changed = merge_configs(checkpoint.config, config, allow_change)
        if 0 < config.train.steps < checkpoint.counters.step:
            raise UsageError(
                f"The run is at step {checkpoint.counters.step:,} already; {config.train.steps:,} steps are behind it.",
                where="train.steps",
                mend="name more steps, or leave train.steps out",
            )
        finished = not changed and is_finished(run, checkpoint.counters.step) and _used_up(config, checkpoint.counters)
        made_from = check_unchanged(run, config, QUIET if finished else progress)
        if finished:
            tidy(run, config, checkpoint.counters, progress.note)
            return _result(run, checkpoint.counters.step, was_complete=True)
        check_machine(config, checkpoint.config, run)
        for key, change in changed.items():
            progress.note(f"changed on resume: {key}: {change}")
            if key not in MAY_CHANGE:
                progress.note(f"No longer bit-equal to an undisturbed run: {key} was changed.")
                checkpoint.counters.undisturbed = False
        if made_from is not None:
            write_made_from(run, made_from)  # with the times of now, so that a copied text is read but once
        return _run(config, run, checkpoint, command_line, watcher or Unwatched(), progress)


def _run(
    config: Config,
    run: RunFolder,
    origin: Checkpoint | LoadedModel | None,
    command_line: str,
    watcher: Watcher,
    progress: Progress,
) -> PretrainResult:
    """Trains from `origin` on: a checkpoint of the run, a model it starts from, or new weights."""
    checkpoint = origin if isinstance(origin, Checkpoint) else None
    initial = origin if isinstance(origin, LoadedModel) else None
    tokenizer, shards = text_to_shards(config, run, checkpoint, progress, initial)
    config, runtime = resolve(config, run.root, tokenizer.vocab_size, shards.count("train").tokens)
    bases = (
        bases_of(initial)
        if initial
        else stored_bases(checkpoint.resolved if checkpoint else {}, config.train.init_from)
    )
    environment = (
        describe_environment(runtime, command_line)
        | to_stored(bases)
        | {"windows_per_rank": {"0": (shards.count("train").tokens - 1) // config.model.block_size}}
    )
    for reason in runtime.reasons:
        if checkpoint is None or "as asked, " in reason:  # a run goes on in its precision where another machine is slow
            progress.note(reason)
    if line := c_code_note(runtime):
        progress.note(line)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime.start())
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        network, counters = _build(config, run, runtime, origin, shards.tokens("train"), progress)
        peak = machine_peak(runtime)
        environment["peak"] = {"flops_per_second": peak.flops, "of": peak.of}
        write_file(run.config, to_toml(config))  # not before the checkpoint was found to fit it
        write_json(run.environment, environment)
        logs = stack.enter_context(open_logs(run, config, counters, watcher, progress.note))
        _note_inequality(config, checkpoint, environment, counters, progress)
        resolved = {key: environment[key] for key in EQUALITY} | {
            "micro_batch_size": config.train.micro_batch_size,
            "strategy": config.parallel.strategy,
            "tokenizer": tokenizer.fingerprint,
            "data": fingerprint_of(shards),
            **to_stored(bases),
        }
        size = size_of(config.model)
        progress.note(
            f"{size.parameters:,} parameters; {shards.count('train').tokens:,} training tokens; "
            f"{config.train.batch_size * config.model.block_size:,} tokens a step"
        )
        progress.note(f'"% of peak" is of {peak}, measured once on this machine.')
        setup = Setup(run, config, runtime, resolved, peak.flops)
        text = RunText(tokenizer, shards)
        loop = Loop(setup, network, Windows(text, config), counters, logs, progress)
        with memory_errors(config, counters):
            loop.train()
            with uncompiled(runtime), finishing(run.root, counters.step, progress) as told:
                finish_run(setup, network.model, text, counters, told)
    return _result(run, counters.step, was_complete=False)


def resolve(config: Config, out: Path, vocab_size: int, train_tokens: int | None) -> tuple[Config, Runtime]:
    """The config with every choice made, and the runtime it asks for. Refuses what cannot fit this machine.

    Args:
        out: the run folder, whether it is there or not.
        vocab_size: entries of the tokenizer.
        train_tokens: of the training text; None: not known, as in a plan.

    Raises:
        UsageError: another vocabulary size is set, or the device is unavailable.
        InputError: the text is shorter than a window.
        ResourceError: memory or disk is too small.
    """
    check_vocab_size(config, vocab_size, vocab_size)
    if train_tokens is not None:
        SampleOrder(train_tokens, config.model.block_size, config.train.seed)  # refuses too little text
    config = with_values(config, {"model.vocab_size": vocab_size})
    runtime = choose_runtime(config.train, expected_seconds(config))
    available = available_memory(runtime.device)
    config = with_values(
        config,
        {
            "train.init": config.chosen_init,
            "train.device": runtime.device,
            "train.precision": runtime.precision,
            "train.compile": runtime.compile,
            "train.threads": runtime.threads,
            "train.micro_batch_size": micro_batch_size_of(config, runtime, available),
            "parallel.strategy": "single",
        },
    )
    check_memory(config, runtime, available)
    check_disk(config, out)
    return config, runtime


def _build(
    config: Config,
    run: RunFolder,
    runtime: Runtime,
    origin: Checkpoint | LoadedModel | None,
    tokens: TokenSequence,
    progress: Progress,
) -> tuple[Network, Counters]:
    """Network and counters, new or as the checkpoint has them; only the weights are those of a model."""
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


def _note_inequality(
    config: Config, checkpoint: Checkpoint | None, environment: dict[str, Any], counters: Counters, progress: Progress
) -> None:
    """Says what keeps the run from being bit-equal to an undisturbed one, if anything does."""
    if config.train.minutes:
        progress.note("The schedule follows the clock: this run does not repeat bit for bit. train.steps would.")
    if checkpoint is None:
        return
    train = config.train
    progress.note(
        f"Going on from step {counters.step:,} ({checkpoint.path}) as the run was started: device {train.device}, "
        f"precision {train.precision}, compile {'on' if train.compile else 'off'}, threads {train.threads}."
    )
    for change in changed_since(checkpoint.resolved, environment):
        progress.note(f"No longer bit-equal to an undisturbed run: {change}.")
        counters.undisturbed = False
    if config.train.steps != counters.schedule_steps and config.schedule.name != "constant":
        old, new = (_factor_at(config, counters, steps) for steps in (counters.schedule_steps, config.train.steps))
        progress.note(
            f"The schedule is computed for {config.train.steps:,} steps from now on: at step {counters.step:,} the "
            f"rate goes from {old:.3f} to {new:.3f} of its peak. The run is no longer equal to an undisturbed one."
        )
        counters.undisturbed = False
    counters.schedule_steps = config.train.steps


def _factor_at(config: Config, counters: Counters, steps: int) -> float:
    """Share of the peak rate where the run stands, in a run of `steps` steps (0: by the clock)."""
    if steps:
        return rate_factor(config.schedule, min(1.0, counters.step / steps), 1 / steps)
    return rate_factor(config.schedule, min(1.0, counters.seconds / (60 * config.train.minutes or 1)), 0.0)


def _used_up(config: Config, counters: Counters) -> bool:
    """Whether the run's steps or minutes are behind it."""
    if config.train.steps:
        return counters.step >= config.train.steps
    return counters.seconds >= 60 * config.train.minutes


def _result(run: RunFolder, step: int, *, was_complete: bool) -> PretrainResult:
    figures = {split: value for split, value in read_sealed_json(run.evaluation).items() if isinstance(value, dict)}
    return PretrainResult(run.root, step, figures, was_complete)
