"""Tasks of EleutherAI's lm-evaluation-harness; scores equal those of its own `hf` model for the same weights."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acorn.errors import AcornError, InputError, MissingPackageError, UsageError
from acorn.model.gpt import GPT
from acorn.progress import QUIET, Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from acorn.evaluate.harness_model import Write

MIN_SIMILARITY = 0.75
"""Smallest similarity (0 to 1) of a suggested task name; the harness has 14,000 names, so a lower limit always finds
some."""


def evaluate_tasks(
    model: GPT,
    tokenizer: Tokenizer,
    runtime: Runtime,
    tasks: Sequence[str],
    write: Write,
    *,
    tasks_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    progress: Progress = QUIET,
) -> dict[str, Any]:
    """Scores a model on tasks of the harness.

    Args:
        tasks: names of tasks, groups or tags.
        write: continues prompts, for tasks that generate text.
        tasks_path: folder with more task files (YAML).
        limit: use only the first `limit` examples of each task.
        num_fewshot: number of solved examples before each question; None: as the task defines.

    Returns:
        task -> {metric -> value}, with the names of the harness.

    Raises:
        UsageError: there is no such task, or it requires what the model cannot do.
        InputError: the data of a task cannot be read.
        MissingPackageError: the extra `eval` is not installed.
    """
    if model.head is None:
        raise UsageError(
            "The model gives labels or values; the harness asks for text.",
            where="the model",
            fix="name a language model, such as the one that this model was finetuned from",
        )
    try:
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingPackageError("lm-eval", "eval", purpose="Scoring tasks") from None
    from acorn.evaluate.harness_model import HarnessModel

    # The harness computes standard errors in forked processes. They inherit acorn's signal handlers and sometimes
    # missed the signal that should end them, so that the command never ended.
    os.environ["DISABLE_MULTIPROC"] = "1"
    # The harness calls git in the user's folder; git's error message would appear in the terminal.
    evaluator.get_git_commit_hash = lambda: None
    progress.note("The harness is listing its tasks.")
    manager = TaskManager(include_path=str(tasks_path) if tasks_path else None)
    for name in tasks:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=MIN_SIMILARITY)
            raise UsageError(
                f"The harness has no task {name!r}.",
                where="--tasks",
                fix=(f"did you mean {', '.join(near)}? " if near else "")
                + "`lm-eval ls tasks` lists its tasks; use --tasks-path FOLDER for your own",
            )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # for the messages of the harness
            found = evaluator.simple_evaluate(
                HarnessModel(model, tokenizer, runtime, write),
                tasks=list(tasks),
                num_fewshot=num_fewshot,
                limit=limit,
                task_manager=manager,
                bootstrap_iters=1000,
                log_samples=False,
            )
    except (AcornError, MemoryError):
        raise
    except (OSError, ValueError, KeyError) as error:  # raised by `datasets`, its dependencies or a task file
        raise InputError(
            f"The harness could not score these tasks: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            where=", ".join(tasks),
            fix="check the data of the tasks: most are downloaded from the Hub once",
        ) from error
    results = found["results"] if found else {}
    return {name: {metric: _number(value) for metric, value in values.items()} for name, values in results.items()}


def _number(value: Any) -> Any:
    """A metric as a JSON value: NaN and infinity become null, NumPy scalars become Python numbers."""
    if isinstance(value, str | int):
        return None if value == "N/A" else value
    return float(value) if math.isfinite(value) else None
