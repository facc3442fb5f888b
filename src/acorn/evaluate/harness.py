"""Tasks of EleutherAI's lm-evaluation-harness, with the scores that its own `hf` model gives for the same weights."""

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

CLOSE = 0.75
"""Likeness (of 1) from which a task's name may be what was meant; below, 14,000 names always have some alike."""


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
        tasks: their names, or names of groups and tags.
        write: continues prompts; needed by tasks that generate.
        tasks_path: a folder with further task files (YAML).
        limit: only so many examples of each task, the first ones.
        num_fewshot: solved examples before each question; None: what the task says.

    Returns:
        task -> {metric -> value}, as the harness names them.

    Raises:
        UsageError: there is no such task, or it asks for what the model cannot do.
        InputError: a task's data cannot be read.
        MissingPackageError: the extra `eval` is not installed.
    """
    try:
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingPackageError("lm-eval", "eval", purpose="Scoring tasks") from None
    from acorn.evaluate.harness_model import HarnessModel

    # Standard errors it would find in forked processes, which take our handling of signals along: the one that is to
    # end them was now and then lost, and the command never ended.
    os.environ["DISABLE_MULTIPROC"] = "1"
    # It would ask git about the user's folder, and git's complaint would stand in the terminal.
    evaluator.get_git_commit_hash = lambda: None
    progress.note("The harness looks through its tasks.")
    manager = TaskManager(include_path=str(tasks_path) if tasks_path else None)
    for name in tasks:
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=CLOSE)
            raise UsageError(
                f"The harness has no task {name!r}.",
                where="--tasks",
                fix=(f"did you mean {', '.join(near)}? " if near else "")
                + "`lm-eval ls tasks` lists its tasks; your own are found with --tasks-path FOLDER",
            )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where its own messages belong
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
    except (OSError, ValueError, KeyError) as error:  # of `datasets` and what it stands on, or a task file's own
        raise InputError(
            f"The harness could not score these tasks: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            where=", ".join(tasks),
            fix="check the tasks' data: most are fetched from the Hub, once",
        ) from error
    results = found["results"] if found else {}
    return {name: {metric: _number(value) for metric, value in values.items()} for name, values in results.items()}


def _number(value: Any) -> Any:
    """A figure as JSON has it: what is no number is null, and NumPy's numbers are Python's."""
    if isinstance(value, str | int):
        return None if value == "N/A" else value
    return float(value) if math.isfinite(value) else None
