"""A complete pretraining run: prepare text, tokenizer and shards if missing, train, write model and report."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from acorn.advice import acorn_command, resume_command
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint
from acorn.config import Config
from acorn.data.token_shards import TokenSequence
from acorn.errors import UsageError
from acorn.model.gpt import GPT
from acorn.model.sizing import size_of
from acorn.progress import QUIET, Progress
from acorn.run.ending import Ending, PretrainingEnding
from acorn.run.initial_model import begin_weights
from acorn.run.lifecycle import Prepared, RunResult, start_or_resume
from acorn.run.resolve import resolve
from acorn.run.start import check_config
from acorn.run.text import fingerprint_of, text_to_shards
from acorn.run_folder import RunFolder
from acorn.train.setup import Setup
from acorn.train.watcher import Watcher
from acorn.train.windows import RunText, Windows


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
) -> RunResult:
    """Trains a model from text, start to finish, in the run folder `out`.

    Args, Raises: as `start_or_resume`.
    """
    return start_or_resume(
        _Pretraining(),
        config,
        out,
        resume=resume,
        allow_change=allow_change,
        overrides=overrides,
        command_line=command_line,
        watcher=watcher,
        progress=progress,
    )


class _Pretraining:
    """The `RunKind` of runs that are trained on a text."""

    def check(self, config: Config) -> None:
        check_config(config)

    def check_stored(self, config: Config, run: RunFolder) -> None:
        if not config.trains_on_text:
            raise UsageError(
                f"{run.root} is a run of acorn finetune.",
                where="--out",
                fix="resume it with: " + acorn_command("finetune", "--resume", "--out", run.root),
            )

    def resume_command(self, run: RunFolder, *more: str) -> str:
        return resume_command(run.root, *more)

    def missing(self, run: RunFolder) -> list[str]:
        return PretrainingEnding.missing(run)

    def prepare(
        self,
        config: Config,
        run: RunFolder,
        checkpoint: Checkpoint | None,
        initial: LoadedModel | None,
        folders: Sequence[Path],
        progress: Progress,
    ) -> Prepared:
        tokenizer, shards = text_to_shards(config, run, checkpoint, progress, initial, folders)
        config, runtime = resolve(config, run.root, tokenizer.vocab_size, shards.count("train").tokens)
        text = RunText(tokenizer, shards)
        return Prepared(
            config,
            runtime,
            Windows(text, config),
            functools.partial(_begin, run, config, shards.tokens("train"), initial, progress),
            functools.partial(_ending, text),
            {"tokenizer": tokenizer.fingerprint, "data": fingerprint_of(shards)},
            {"windows_per_rank": {"0": (shards.count("train").tokens - 1) // config.model.block_size}},
            _notes(config, text),
        )


def _begin(
    run: RunFolder,
    config: Config,
    tokens: TokenSequence,
    initial: LoadedModel | None,
    progress: Progress,
    model: GPT,
) -> None:
    begin_weights(run, model, config, tokens, initial, progress)


def _ending(text: RunText, setup: Setup) -> Ending:
    return PretrainingEnding(setup, text)


def _notes(config: Config, text: RunText) -> list[str]:
    """How much is trained on how much, and what is scored meanwhile."""
    size, count = size_of(config.model), text.shards.count
    notes = [
        f"{size.parameters:,} parameters; {count('train').tokens:,} training tokens; "
        f"{config.train.batch_size * config.model.block_size:,} tokens per step"
    ]
    if 0 < config.train.eval_tokens < count("valid").tokens - 1 and config.train.eval_every:
        notes.append(
            f"Validation during training uses the first {config.train.eval_tokens:,} of "
            f"{count('valid').tokens - 1:,} tokens (train.eval_tokens)."
        )
    return notes
