"""`acorn evaluate`: scores a model on a text or on tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acorn.cli.arguments import path_from
from acorn.cli.evaluation_facts import evaluation_facts, split_name
from acorn.cli.finetune import facts_of
from acorn.cli.output import check_stdout, print_facts, print_json
from acorn.cli.text_arguments import METAVAR, split_settings
from acorn.errors import UsageError
from acorn.figure_names import altered_text

if TYPE_CHECKING:
    from acorn.checkpoint.load import LoadedModel
    from acorn.config import DataConfig
    from acorn.progress import Progress
    from acorn.runtime.device import Runtime


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", parser=path_from("RUN"), help="A run, checkpoint or model folder, or hf:OWNER/NAME."
        ),
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=METAVAR, help="With --input: more text, and data settings such as data.text_field=body."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="The split of the run's own text or examples: valid, test or train. By default valid; of a finetuned "
            "model test, if there is one."
        ),
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="FILE", help="Score this text, or these labeled rows, instead of a split."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B", help="Score tasks of the lm-evaluation-harness instead of a text.")
    ] = None,
    tasks_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=path_from("--tasks-path"), help="A folder with more task files."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N examples of each task.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Number of solved examples before each question.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens per window; by default the model's block_size.")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Tokens between the beginnings of windows; by default the context.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="last|best|STEP", help="The checkpoint of a run to use; by default the final model."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="auto (fp32 on a CPU), fp32, bf16, fp16 or int8 (weights in 8 bits).")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a model on a split, on your own text or on tasks.

    For text it prints loss, bits per byte and word perplexity; for a finetuned model the figures of its task, of its
    test or validation side or of labeled rows.
    """
    _check_options(tasks, tasks_path, limit, num_fewshot, input, context, stride)
    names = None if tasks is None else _names(tasks)
    sources, overrides = _text_of(input, more or [])
    check_stdout()
    from acorn.checkpoint.load import load
    from acorn.evaluate.run_data import data_config_of, shards_of
    from acorn.evaluate.validation import evaluate_documents, evaluate_split
    from acorn.model.int8 import round_to_int8
    from acorn.report.terminal import TaskProgress
    from acorn.run.example_evaluation import evaluate_examples, origin_of, task_to_score
    from acorn.runtime.choose import runtime_for_inference
    from acorn.text.splits import TextSplits

    runtime = runtime_for_inference(device, precision)
    progress = TaskProgress()
    loaded = load(run, checkpoint, runtime.device, progress=progress)
    if names:
        loaded.require_language_model("it does not predict text, which these tasks score")
    if precision == "int8":
        round_to_int8(loaded.model)
    if not names:
        origin = origin_of(loaded)
        if task := task_to_score(loaded, origin, sources, overrides, progress):
            _check_for_examples(context, stride)
            with runtime.start():
                figures = evaluate_examples(
                    loaded, origin, task, runtime, progress, split=split, sources=sources, overrides=overrides
                )
            progress.close()
            show_examples(figures | {"precision": precision if precision == "int8" else runtime.precision}, as_json)
            return
    clean: str
    with runtime.start():
        if names:
            results = _score_tasks(loaded, runtime, names, tasks_path, limit, num_fewshot, progress)
            progress.close()
            _show_tasks(results, as_json)
            return
        if sources:
            data = read_with(data_config_of(loaded.folder), overrides)
            texts, clean = TextSplits.open_held_out(sources, data, progress), data.clean
            result = evaluate_documents(
                loaded.model,
                loaded.tokenizer,
                texts.documents(texts.names[0]),
                runtime,
                clean=data.clean,
                context=context,
                stride=stride,
                progress=progress,
            )
        else:
            shards = shards_of(loaded.folder, loaded.tokenizer)
            clean = shards.clean
            result = evaluate_split(
                loaded.model,
                loaded.tokenizer,
                shards,
                split or "valid",
                runtime,
                context=context,
                stride=stride,
                progress=progress,
            )
    progress.close()
    facts = dataclasses.asdict(result) | ({"precision": precision} if precision == "int8" else {})
    if as_json:
        print_json(facts)
    else:
        print_facts(evaluation_facts(facts, altered_text(clean, result.lossless)))


def _check_options(tasks: str | None, *others: object) -> None:
    """Refuses options for tasks without --tasks, and options for text with it."""
    names = ("--tasks-path", "--limit", "--num-fewshot", "--input", "--context", "--stride")
    given = [name for name, value in zip(names, others, strict=True) if value not in (None, [])]
    wrong = [name for name in given if (name in names[:3]) != (tasks is not None)]
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)} cannot be used {'with' if tasks else 'without'} --tasks.",
            where="acorn evaluate",
            fix="omit it" if tasks else "name tasks with --tasks",
        )


def _names(tasks: str) -> list[str]:
    """The names in `A,B`.

    Raises:
        UsageError: one is empty.
    """
    names = [name.strip() for name in tasks.split(",")]
    if "" in names:
        raise UsageError(
            f"{tasks!r} contains an empty name.", where="--tasks", fix="name tasks, separated by commas: A,B"
        )
    return names


def _text_of(input: list[str] | None, more: list[str]) -> tuple[list[str], list[str]]:
    """The sources to score instead of a split, and the settings for reading them.

    Raises:
        UsageError: a source is empty, a setting has no effect here, or --input is missing.
    """
    sources, overrides = split_settings(more)
    if not input and more:
        raise UsageError(
            f"{more[0]!r} needs --input: a split is scored as it was prepared.",
            where="acorn evaluate",
            fix="name the text to score with --input SRC, then settings such as data.text_field=body",
        )
    sources = [*(input or []), *sources]
    if "" in sources:
        raise UsageError(
            "An empty string is not a source of text.",
            where="--input",
            fix='omit it, or write "." for the current folder',
        )
    if overrides:
        from acorn.config_files import check_evaluated

        check_evaluated(overrides)  # before a model is loaded
    return sources, overrides


def read_with(data: DataConfig, overrides: list[str]) -> DataConfig:
    """The data settings of a run, with overrides.

    Raises:
        UsageError: a setting has no effect here, or an invalid value.
    """
    from acorn.config import Config
    from acorn.config_files import EVALUATE_TEXT, with_overrides

    return with_overrides(Config(data=data), overrides, EVALUATE_TEXT).data


def _check_for_examples(context: int | None, stride: int | None) -> None:
    """Refuses options that have no effect on examples."""
    given = [name for name, value in (("--context", context), ("--stride", stride)) if value is not None]
    if given:
        raise UsageError(
            f"{' and '.join(given)} cannot be used here: an example is read by itself, not in windows.",
            where="acorn evaluate",
            fix="leave it out",
        )


def show_examples(figures: dict[str, Any], as_json: bool) -> None:
    """Prints the figures of examples, each with those of the baselines behind it, and the notes on them."""
    if as_json:
        print_json(figures)
        return
    print_facts({"split": split_name(figures["split"]), "examples": figures["examples"], **facts_of(figures)})
    for note in [*figures["notes"], *figures.get("baselines", {}).get("notes", [])]:
        print(note)


def _score_tasks(
    loaded: LoadedModel,
    runtime: Runtime,
    tasks: list[str],
    tasks_path: Path | None,
    limit: int | None,
    num_fewshot: int | None,
    progress: Progress,
) -> dict[str, Any]:
    from acorn.evaluate.harness import evaluate_tasks
    from acorn.generate.engine import generate
    from acorn.generate.settings import SamplingSettings
    from acorn.kernels.build import c_library
    from acorn.kernels.decode import c_code_note

    told = runtime.device != "cpu"

    def write(prompts: Any, new_tokens: int, stop: tuple[str, ...], sampling: dict[str, Any]) -> list[list[int]]:
        settings = SamplingSettings(new_tokens, **{"temperature": 1.0, "top_k": 0, "seed": 0, **sampling}, stop=stop)
        nonlocal told
        if not told and (line := c_code_note(c_library("decode"))):  # only if a task generates text
            progress.note(line)
        told = True
        with runtime.autocast():
            results = generate(
                loaded.model,
                loaded.tokenizer,
                prompts,
                settings,
                end_ids=loaded.end_ids,
                trained_ids=loaded.trained_ids,
            )
        return [result.new_ids for result in results]

    return evaluate_tasks(
        loaded.model,
        loaded.tokenizer,
        runtime,
        tasks,
        write,
        tasks_path=tasks_path,
        limit=limit,
        num_fewshot=num_fewshot,
        progress=progress,
    )


def _show_tasks(results: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({"tasks": results})
        return
    for name, values in results.items():
        print(name)
        print_facts({metric: value for metric, value in values.items() if metric not in ("alias", "name")})
