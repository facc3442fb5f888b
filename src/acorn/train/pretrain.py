"""A whole pretraining run: text, tokenizer and shards if they are not there yet, the loop, the finished model, the report."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.training_state import Checkpoint, Counters, read_checkpoint, restore
from acorn.config import Config
from acorn.config_files import differences, load_config, to_toml, with_values
from acorn.data.prepare import prepare
from acorn.data.token_shards import TokenShards
from acorn.errors import DamageError, InputError, UsageError
from acorn.files import FolderLock, disk_errors, settle, sha256_of, write_file, write_json
from acorn.model.gpt import GPT
from acorn.model.sizing import choose_micro_batch_size, size_of
from acorn.progress import QUIET, Progress
from acorn.report.metrics_log import JsonLines
from acorn.report.trackers import open_trackers
from acorn.run_folder import MANIFEST, RunFolder
from acorn.runtime.device import Runtime, choose_runtime, measure_peak
from acorn.runtime.memory import available_memory
from acorn.text.splits import TextSplits
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import mangling_warning
from acorn.tokenizer.training import train as train_tokenizer
from acorn.train.budget import check_disk, check_memory, expected_seconds
from acorn.train.environment import changed_since, describe_environment
from acorn.train.finish import finish_run, is_finished
from acorn.train.loop import Loop, Watcher
from acorn.train.optimizer import build_optimizers
from acorn.train.resume import merge_configs


class Unwatched:
    """A `Watcher` that shows nothing."""

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        pass

    def valid(self, record: Mapping[str, Any]) -> None:
        pass

    def sample(self, step: int, prompt: str, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


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
    _check_folder(run, resume)
    with FolderLock(run.lock):
        if config is None:
            if not run.config.exists():
                raise UsageError(
                    "There is no run to go on with.", where=str(run.config), mend="name a preset or a TOML file to start one"
                )
            config = load_config(run.config, overrides)
        found = newest_whole_checkpoint(run) if resume else None
        if found is None:
            return _run(config, run, None, command_line, watcher or Unwatched(), progress)
        checkpoint = read_checkpoint(found)
        config, changed = merge_configs(checkpoint.config, config, allow_change)
        for key, change in changed.items():
            progress.note(f"changed on resume: {key}: {change}")
        if not changed and is_finished(run, checkpoint.counters.step) and _used_up(config, checkpoint.counters):
            return _result(run, checkpoint.counters.step, was_complete=True)
        return _run(config, run, checkpoint, command_line, watcher or Unwatched(), progress)


def _run(
    config: Config,
    run: RunFolder,
    checkpoint: Checkpoint | None,
    command_line: str,
    watcher: Watcher,
    progress: Progress,
) -> PretrainResult:
    if not (config.train.steps or config.train.minutes):
        raise UsageError("The run has no length.", where="train.steps, train.minutes", mend="set one of them")
    tokenizer, shards = _text_to_shards(config, run, checkpoint, progress)
    config, runtime = _resolve(config, run, tokenizer, checkpoint)
    environment = describe_environment(runtime, command_line) | {
        "windows_per_rank": {"0": (shards.count("train").tokens - 1) // config.model.block_size}
    }
    write_file(run.config, to_toml(config))
    write_json(run.environment, environment)
    for reason in runtime.reasons:
        progress.note(reason)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runtime.start())
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        model, optimizers, counters = _build(config, runtime, checkpoint)
        metrics = stack.enter_context(contextlib.closing(JsonLines(run.metrics)))
        samples = stack.enter_context(contextlib.closing(JsonLines(run.samples)))
        for log, length in ((metrics, counters.metrics_bytes), (samples, counters.samples_bytes)):
            if log.cut_to(length):
                progress.note(f"{log.path.name} is shorter than the checkpoint remembers; the missing lines stay missing.")
        trackers = open_trackers(config.report.trackers, config.name, run.root, config.model_dump(), progress.note)
        stack.enter_context(contextlib.closing(trackers))
        _note_inequality(config, checkpoint, environment, counters, progress)
        resolved = {key: environment[key] for key in ("torch", "machine", "device", "threads", "world_size")} | {
            "tokenizer": tokenizer.fingerprint,
            "data": _fingerprint(shards),
        }
        size = size_of(config.model)
        progress.note(
            f"{size.parameters:,} parameters; {shards.count('train').tokens:,} training tokens; "
            f"{config.train.batch_size * config.model.block_size:,} tokens a step"
        )
        loop = Loop(
            config,
            run,
            runtime,
            model,
            optimizers,
            shards,
            tokenizer,
            counters,
            resolved,
            measure_peak(runtime.device, runtime.dtype),
            metrics,
            samples,
            trackers,
            watcher,
        )
        loop.train()
        finish_run(run, config, runtime, model, tokenizer, shards, counters, progress)
    return _result(run, counters.step, was_complete=False)


def _check_folder(run: RunFolder, resume: bool) -> None:
    """Refuses a folder that holds something already, and one that cannot be written."""
    if run.root.exists() and not run.root.is_dir():
        raise UsageError(f"{run.root} is a file, not a folder.", where="--out", mend="name another folder")
    if not resume and run.root.exists() and any(entry != run.lock for entry in run.root.iterdir()):
        raise UsageError(
            f"The folder {run.root} is not empty.",
            where="--out",
            mend="go on with that run by adding --resume, or name another folder with --out",
        )
    with disk_errors(run.root):
        run.root.mkdir(parents=True, exist_ok=True)


def _text_to_shards(
    config: Config, run: RunFolder, checkpoint: Checkpoint | None, progress: Progress
) -> tuple[Tokenizer, TokenShards]:
    """The run's tokenizer and shards: those in its folder if they are whole and its own, else made now."""
    if config.data.shards:
        shards = TokenShards.open(Path(config.data.shards))
        tokenizer = Tokenizer.from_file(Path(config.data.shards) / "tokenizer.json")
        write_file(run.tokenizer, tokenizer.to_json())
    elif checkpoint is not None:
        tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json)
        shards = TokenShards.open(run.data, tokenizer.fingerprint)
    elif _has_own_shards(config, run):
        tokenizer = Tokenizer.from_file(run.tokenizer)
        shards = TokenShards.open(run.data, tokenizer.fingerprint)
    else:
        tokenizer, shards = _make_shards(config, run, progress)
    if checkpoint is not None and _fingerprint(shards) != checkpoint.resolved["data"]:
        raise DamageError(
            "The token shards are not those that the run was started with.",
            where=str(shards.folder),
            mend="put the original shards back, or start another run with --out",
        )
    return tokenizer, shards


def _has_own_shards(config: Config, run: RunFolder) -> bool:
    """Whether an earlier start of this very run got as far as its shards."""
    settle(run.data)
    if not (run.config.exists() and run.tokenizer.exists() and (run.data / MANIFEST).exists()):
        return False
    changed = differences(load_config(run.config), config)
    return not any(key.startswith(("data.", "tokenizer.")) for key in changed)


def _make_shards(config: Config, run: RunFolder, progress: Progress) -> tuple[Tokenizer, TokenShards]:
    if not config.data.source:
        raise UsageError(
            "No text is named.", where="data.source", mend="name some, such as 'data.source=my_corpus/*.txt' or bundled:wikitext-2"
        )
    texts = TextSplits.open(config.data, progress)
    if config.tokenizer.path:
        tokenizer = Tokenizer.from_file(Path(config.tokenizer.path))
    else:
        tokenizer = train_tokenizer(
            _TrainingTexts(texts),
            config.tokenizer.kind,
            config.tokenizer.vocab_size,
            entries=["<unk>"] if texts.has_wikitext and config.tokenizer.kind == "bpe" else [],
            progress=progress,
        )
    write_file(run.config, to_toml(config))
    write_file(run.tokenizer, tokenizer.to_json())
    _remove_folder(run.data)
    shards = prepare(texts, tokenizer, run.data, shard_tokens=config.data.shard_tokens, progress=progress)
    return tokenizer, shards
