"""`acorn evaluate` of a model on examples: a side of its own run, or rows that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.model_chat import chat_record
from acorn.config import Config, DataConfig, FinetuneConfig
from acorn.config_files import EVALUATE_ROWS, load_run_config, with_overrides
from acorn.data.example_folder import ExampleFolder
from acorn.data.examples import encode_side, resolved_overlong
from acorn.errors import AcornError, DamageError, UsageError
from acorn.figure_names import SPLITS, in_a_sentence
from acorn.files import read_sealed_json
from acorn.progress import Progress
from acorn.run.example_scoring import Figures, score_side
from acorn.run_folder import MANIFEST, RunFolder, run_of
from acorn.runtime.device import Runtime
from acorn.text.example_shapes import columns_of, task_of
from acorn.text.example_splits import ExampleSplits
from acorn.text.examples import Example, Record, Task
from acorn.text.records import read_records
from acorn.train.task import task_of_model

INPUT = "--input"
OF_THE_RUN = ("random_weights",)
"""Baselines that only the run itself computes."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        run: the finetuning run that made it; None: the model is not inside one, or inside that of another model.
        config: how the run read its rows, with the model's task and labels; without a run the defaults.
    """

    run: RunFolder | None
    config: Config


def origin_of(loaded: LoadedModel) -> Origin:
    """The finetuning run that a model is inside of.

    Raises:
        DamageError: the run's config.toml cannot be read.
    """
    run = run_of(loaded.folder)
    config = load_run_config(run.config) if run else Config()
    finetune = config.finetune
    if loaded.task:
        is_its_own = finetune.task == loaded.task and (not finetune.labels or finetune.labels == loaded.labels)
    else:
        is_its_own = finetune.task in ("chat", "complete")
    if is_its_own:
        return Origin(run, config)
    labels = loaded.labels if loaded.task in ("classify", "tag") else ()
    # Not checked as a user's labels are: those of other programs may have any form.
    finetune = FinetuneConfig().model_copy(update={"task": loaded.task, "labels": labels})
    data = DataConfig() if loaded.task else config.data  # text is read as the run's own was
    return Origin(None, Config().model_copy(update={"data": data, "finetune": finetune}))


def with_row_settings(config: Config, overrides: Sequence[str], command: str) -> Config:
    """`config` with the user's settings of how rows are read.

    Raises:
        UsageError: a setting has no effect there, or an invalid value.
    """
    changed = with_overrides(Config(), overrides, command)
    given = [override.partition("=")[0].strip() for override in overrides]
    sections: dict[str, Any] = {}
    for name in ("data", "finetune"):
        keys = [key.partition(".")[2] for key in given if key.startswith(f"{name}.")]
        values = {key: getattr(getattr(changed, name), key) for key in keys}
        sections[name] = getattr(config, name).model_copy(update=values)
    return config.model_copy(update=sections)


def task_to_score(
    loaded: LoadedModel, origin: Origin, sources: Sequence[str], overrides: Sequence[str], progress: Progress
) -> Task | None:
    """Which task `acorn evaluate` scores; None: text.

    A label head decides by itself. Of a language model the columns of the first row do: those of chat or of complete
    are examples; a column of text, and every file that has no rows, is text.
    """
    if loaded.task:
        loaded.require_label_head()
        return loaded.task  # type: ignore[return-value]
    own: Any = origin.config.finetune.task if origin.run else ""
    if not sources:
        return own or None
    given = [override.partition("=")[0].strip() for override in overrides]
    if any(key.startswith("data.") and key not in ("data.encoding", "data.errors") for key in given):
        return None  # settings of text alone
    try:
        fields = [override for override in overrides if override.startswith("finetune.")]
        config = with_row_settings(origin.config, fields, EVALUATE_ROWS)
        rows = read_records(sources, config.data, named_by=INPUT)
        first = next(row for row in rows if isinstance(row, Record))
        if not own and config.data.text_field in first.values:
            return None
        task, _ = task_of([first], config.finetune)
    except (AcornError, StopIteration):  # no rows of a task; as text it gets its own error
        return None
    if task not in ("chat", "complete"):
        return None
    columns = "conversations" if task == "chat" else " and ".join(map(repr, columns_of(task, config.finetune)))
    progress.note(f"{first.where} has {columns}: answers are generated and compared. {_AS_TEXT}")
    return task


_AS_TEXT = "To score a column as text, name it in data.text_field."


def evaluate_examples(
    loaded: LoadedModel,
    origin: Origin,
    task_name: Task,
    runtime: Runtime,
    progress: Progress,
    *,
    split: str | None = None,
    sources: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> Figures:
    """Figures of a side of the model's own run, or of all rows of `sources`, as `acorn evaluate --json` has them.

    Args:
        split: a side of the run; None: its test side, else its validation side.
        sources: rows with labels or answers, in place of a side.
        overrides: `key=value` settings of how these are read.

    Raises:
        UsageError: the model is not inside a run, or a setting or split does not fit.
        InputError: a row cannot be used, or has a label that the model does not know.
        DamageError: the run's examples are damaged, or the model's outputs are not finite.
    """
    config = with_row_settings(origin.config, overrides, EVALUATE_ROWS)
    config = config.model_copy(update={"finetune": config.finetune.model_copy(update={"task": task_name})})
    own = _examples_of(origin.run, progress) if origin.run else None
    if sources:
        name, examples = "input", _rows(loaded, config, sources, progress)
    elif own is None:
        raise UsageError(
            f"The model {loaded.folder} is not inside the run that it was finetuned in, so it has no examples.",
            where="--split",
            fix="name rows to score with --input FILE",
        )
    else:
        name, examples = _side(own, split)
    chat = (own.manifest.get("chat") if own else None) or chat_record(loaded)
    task = task_of_model(
        loaded,
        task_name,
        chat,
        trains_prompts=config.finetune.loss_on == "all",
    )
    overlong = resolved_overlong(task_name, config.finetune.overlong)
    side = encode_side(name, examples, task.encoder, loaded.config.block_size, overlong, progress)
    training = own.sides["train"] if own and own.task == task_name else None
    figures, _ = score_side(
        loaded.model, task, side, training, runtime, progress, class_weights=config.finetune.class_weights
    )
    if not sources and origin.run:
        _add_baselines_of_the_run(figures, origin.run, name)
    return {"split": name, **figures, **({"cut": side.cut} if side.cut else {})}


def _examples_of(run: RunFolder, progress: Progress) -> ExampleFolder:
    """The examples of a run.

    Raises:
        DamageError: they are missing or damaged.
    """
    if not (run.data / MANIFEST).is_file():
        raise DamageError(
            "The run's examples are gone.", where=str(run.data), fix="resume the run, which reads them again"
        )
    return ExampleFolder.open(run.data, progress)


def _side(own: ExampleFolder, split: str | None) -> tuple[str, list[Example]]:
    """The name and the examples of a side.

    Raises:
        UsageError: there is none of that name.
    """
    name = split or ("test" if "test" in own.sides else "valid")
    if name not in own.sides:
        raise UsageError(
            f"The run has no {in_a_sentence(SPLITS.get(name, name))} side.",
            where=f"--split {name}",
            fix=f"choose one of {', '.join(own.sides)}, or name rows with --input FILE",
        )
    return name, own.sides[name]


def _rows(loaded: LoadedModel, config: Config, sources: Sequence[str], progress: Progress) -> list[Example]:
    head = loaded.model.head_spec
    splits = ExampleSplits.open_held_out(
        sources, config.data, config.finetune, progress, multi_label=head is not None and head.kind == "labels"
    )
    return splits.sides[INPUT]


def _add_baselines_of_the_run(figures: Figures, run: RunFolder, side: str) -> None:
    """Adds what only the run computes, from its evaluation.json."""
    try:
        stored = read_sealed_json(run.evaluation).get(side)
    except DamageError:  # the run is not finished
        return
    found = stored.get("baselines") if isinstance(stored, dict) else None
    for name in OF_THE_RUN:
        if isinstance(found, dict) and isinstance(found.get(name), dict) and "baselines" in figures:
            figures["baselines"][name] = found[name]
