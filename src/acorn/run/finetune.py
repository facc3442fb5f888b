"""A whole finetuning run: rows become examples of a task, and a base model becomes one that does the task."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from acorn.advice import acorn_command
from acorn.checkpoint.checkpoint_task import MARKUP, answers_record, head_record, lora_spec
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_chat import chat_record
from acorn.checkpoint.training_state import Checkpoint
from acorn.config import Config
from acorn.config_files import with_values
from acorn.counting import counted
from acorn.data.examples import encode_side, resolved_overlong
from acorn.data.replay import exact_share
from acorn.errors import UsageError
from acorn.files import write_file
from acorn.model.gpt import GPT
from acorn.model.lora import LoraSpec
from acorn.model.sizing import size_of
from acorn.progress import QUIET, Progress
from acorn.report.formats import frozen_parts
from acorn.run.base_text import Forgetting, base_text, forgetting_of
from acorn.run.budget import StepShape
from acorn.run.ending import Ending
from acorn.run.examples import RunExamples, examples_of_run, fingerprint_of
from acorn.run.finetune_config import check_finetuning, check_frozen, default_rate
from acorn.run.finetuned_ending import FinetuningEnding
from acorn.run.initial_model import begin_weights
from acorn.run.lifecycle import Prepared, RunResult, start_or_resume
from acorn.run.resolve import resolve
from acorn.run.resume import check_length_left
from acorn.run.start import check_launch
from acorn.run.text import check_own_tokenizer
from acorn.run_folder import TOKENIZER, RunFolder
from acorn.runtime.address_space import check_address_space
from acorn.runtime.device import Runtime
from acorn.tokenizer.chat_format import ChatFormat
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train.examples import Examples, longest_row
from acorn.train.setup import Setup
from acorn.train.task import FinetuningTask, task_of_run
from acorn.train.value_head import begin_value_head
from acorn.train.watcher import Watcher

BASE_TEXT = "base_text"
"""What checkpoints tell of the base's text is under this key."""


def finetune(
    config: Config | None,
    out: Path,
    *,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    overrides: Sequence[str] = (),
    command_line: str = "",
    watcher: Watcher | None = None,
    progress: Progress = QUIET,
    with_baseline: bool = False,
) -> RunResult:
    """Finetunes a model on examples, start to finish, in the run folder `out`.

    Args:
        config: as `finetune_config` gives it; None: the run folder's own.
        with_baseline: a baseline follows (`run/baselines.py`), so that commands that resume the run ask for it.

    Other arguments, Raises: as `start_or_resume`.
    """
    return start_or_resume(
        Finetuning(with_baseline),
        config,
        out,
        resume=resume,
        allow_change=allow_change,
        overrides=overrides,
        command_line=command_line,
        watcher=watcher,
        progress=progress,
    )


class Finetuning:
    """The `RunKind` of runs that are trained on examples.

    Args:
        with_baseline: as `finetune`.
    """

    def __init__(self, with_baseline: bool = False) -> None:
        self._options = ("--baselines",) if with_baseline else ()

    def check(self, config: Config) -> None:
        check_address_space("training", config.train.threads)
        check_finetuning(config)
        check_launch()

    def check_stored(self, config: Config, run: RunFolder) -> None:
        if config.trains_on_text:
            raise UsageError(
                f"{run.root} is a run of acorn pretrain.",
                where="--out",
                fix="name another folder; or resume it with: "
                + acorn_command("pretrain", "--resume", "--out", run.root),
            )
        if not config.train.init_from:
            raise UsageError(
                f"{run.root} is the baseline of another run.",
                where="--out",
                fix="resume it with that run: "
                + acorn_command("finetune", "--resume", "--out", run.root.parent, "--baselines"),
            )

    def resume_command(self, run: RunFolder, *more: str) -> str:
        return acorn_command("finetune", "--resume", "--out", run.root, *self._options, *more)

    def missing(self, run: RunFolder) -> list[str]:
        return FinetuningEnding.missing(run)

    def given_by_base(
        self, checkpoint: Checkpoint | None, initial: LoadedModel | None
    ) -> tuple[Tokenizer, dict[str, Any]]:
        """The tokenizer of the base model, and its chat template with what it may call by name, if it has one."""
        if checkpoint is None:
            assert initial is not None
            return initial.tokenizer, chat_record(initial)
        where = str(checkpoint.path / TOKENIZER)
        tokenizer = Tokenizer.from_json(checkpoint.tokenizer_json, where=where, as_it_is=True)
        return tokenizer, checkpoint.resolved.get("chat", {})

    def examples(
        self,
        config: Config,
        run: RunFolder,
        checkpoint: Checkpoint | None,
        initial: LoadedModel | None,
        folders: Sequence[Path],
        progress: Progress,
        extra: Mapping[str, Any],
    ) -> RunExamples:
        """The run's examples; see `examples_of_run`."""
        return examples_of_run(config, run, checkpoint, initial, folders, progress, extra)

    def prepare(
        self,
        config: Config,
        run: RunFolder,
        checkpoint: Checkpoint | None,
        initial: LoadedModel | None,
        folders: Sequence[Path],
        progress: Progress,
    ) -> Prepared:
        base_tokenizer, chat = self.given_by_base(checkpoint, initial)
        extra = {"chat": chat} if chat else {}
        examples = self.examples(config, run, checkpoint, initial, folders, progress, extra)
        found = examples.found
        task = task_of_run(found, config.finetune, base_tokenizer)
        overlong = resolved_overlong(found.task, config.finetune.overlong)
        context = config.model.block_size
        sides = {
            name: encode_side(name, listed, task.encoder, context, overlong, progress)
            for name, listed in found.sides.items()
        }
        check_frozen(config, task.head is not None)
        known = checkpoint.resolved.get(BASE_TEXT, {}) if checkpoint else {}
        text = None
        if task.head is None and config.train.init_from:  # random weights have no base
            text = base_text(config, task.tokenizer, folders, known, progress)
        examples.keep()
        _write_tokenizer(run, task.tokenizer, checkpoint)
        chosen = {
            "finetune.task": found.task,
            "finetune.labels": task.labels,
            "finetune.overlong": overlong,
            "optimizer.lr": config.optimizer.lr or (default_rate(config) if config.optimizer.name == "adamw" else 0.0),
        }
        config = with_values(config, {**chosen, **_length(config, len(sides["train"].tokens))})
        if checkpoint:
            check_length_left(config, checkpoint.config, checkpoint.counters)
        lora = _lora_of(config, task)
        longest = longest_row(sides["train"].tokens, context, config.finetune.replay > 0)
        shape = StepShape(longest, task.head, lora, config.finetune.freeze)
        config, runtime = resolve(config, run.root, task.tokenizer.vocab_size, None, shape)
        data = Examples(task, sides, config, text.replay(config) if text else None)
        forgetting = forgetting_of(text, known, initial, runtime, progress)
        if forgetting:
            known = forgetting.record
        return Prepared(
            config,
            runtime,
            data,
            functools.partial(_begin, run, config, data, initial, runtime, progress),
            functools.partial(_ending, data, forgetting),
            {
                "tokenizer": task.tokenizer.fingerprint,
                "data": fingerprint_of(found),
                **extra,
                **({BASE_TEXT: known} if known else {}),
                **_stored(task, lora),
            },
            {"examples_per_rank": {"0": len(sides["train"].tokens)}},
            [*_notes(config, data, lora), *([forgetting.start_note] if forgetting else [])],
            task.head,
            lora,
        )


def _write_tokenizer(run: RunFolder, tokenizer: Tokenizer, checkpoint: Checkpoint | None) -> None:
    """Writes tokenizer.json of a new run, and on resume where it is missing.

    Raises:
        DamageError: the run has another one than its checkpoints.
    """
    if checkpoint is None:
        write_file(run.tokenizer, tokenizer.to_json())
    else:
        check_own_tokenizer(run, checkpoint)


def _lora_of(config: Config, task: FinetuningTask) -> LoraSpec | None:
    """What is trained beside the frozen weights of the base; None: all weights are trained.

    The rows of tokens that acorn reserves for chat are trained, because no base model has seen them.

    Raises:
        UsageError: a target is no linear layer of the network.
    """
    markup = task.chat.markup_ids if isinstance(task.chat, ChatFormat) else ()
    spec = lora_spec(config.lora, markup)
    if spec is None:
        return None
    try:
        size_of(config.model, task.head, spec)
    except ValueError as error:
        raise UsageError(f"{error}.", where="lora.targets", fix="leave lora.targets out for all layers") from None
    return spec


def _length(config: Config, examples: int) -> dict[str, int]:
    """The steps that finetune.epochs come to."""
    if not config.finetune.epochs:
        return {}
    samples = Fraction(config.finetune.epochs) * examples / (1 - exact_share(config.finetune.replay))
    return {"train.steps": max(1, math.ceil(samples / config.train.batch_size))}


def _base_tokenizer(checkpoint: Checkpoint | None, initial: LoadedModel | None) -> Tokenizer:
    if initial is not None:
        return initial.tokenizer
    assert checkpoint is not None
    where = str(checkpoint.path / TOKENIZER)
    return Tokenizer.from_json(checkpoint.tokenizer_json, where=where, as_it_is=True)


def _stored(task: FinetuningTask, lora: LoraSpec | None) -> dict[str, Any]:
    """What checkpoints tell of the model, beside the config."""
    markup = {MARKUP: list(lora.markup_ids)} if lora else {}
    if task.head is not None:
        return {**markup, **head_record(task.head, task.output_names, task.scale)}
    template = task.chat.template if task.chat else ""
    return {**markup, **answers_record(task.end_ids, sorted(task.trained_ids), template)}


def _begin(
    run: RunFolder,
    config: Config,
    data: Examples,
    initial: LoadedModel | None,
    runtime: Runtime,
    progress: Progress,
    model: GPT,
) -> None:
    """Gives a new network the weights of its base, and a new head its own."""
    begin_weights(run, model, config, None, initial, progress)
    model.init_weights(config.train.seed, model.new_parameters())
    if data.task.name == "regress":
        begin_value_head(model, data.sides["train"].tokens, runtime, data.tokenizer.pad_id)


def _ending(data: Examples, forgetting: Forgetting | None, setup: Setup) -> Ending:
    return FinetuningEnding(setup, data, forgetting)


def _notes(config: Config, data: Examples, lora: LoraSpec | None) -> list[str]:
    """How much is trained on how much."""
    side = data.sides["train"]
    size = size_of(config.model, data.task.head, lora, config.finetune.freeze)
    trained = f", {size.trained_parameters:,} of them trained" if lora or config.finetune.freeze else ""
    tokens = sum(len(example.ids) for example in side.tokens)
    steps, examples = counted(config.train.steps, "step"), counted(config.train.batch_size, "example")
    length = f"; {steps} of {examples}" if config.train.steps else ""
    notes = [
        f"{data.task.name}: {size.parameters:,} parameters{trained}; "
        f"{counted(len(side.tokens), 'training example')} of {tokens:,} tokens{length}"
    ]
    if config.finetune.freeze:
        kept = frozen_parts(config.finetune.freeze, config.model.n_layer)
        notes.append(f"Not trained (finetune.freeze): {kept}.")
        if config.model.is_tied and data.task.head is None:
            notes.append("The head is tied to the embeddings, so it is not trained either.")
    if data.replay:
        notes.append(
            f"{100 * config.finetune.replay:g} % of the samples are windows of {config.model.block_size:,} tokens of "
            "the base's own training text (finetune.replay)."
        )
    return notes
