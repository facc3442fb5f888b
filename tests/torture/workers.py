"""Runs trials in parallel, one forked process per core; a trial is a function of its number."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Trial = Callable[[int], dict[str, Any]]


def cores() -> list[int]:
    """The cores that this process may use; all of them if the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_trials(trial: Trial, numbers: list[int], results: Path, task: str) -> list[dict[str, Any]]:
    """Runs every trial, one process per core, and reports progress on stderr.

    Args:
        trial: gives a JSON object; what it raises is the outcome `error`.
        results: a folder for the outcomes.
    """
    results.mkdir(parents=True, exist_ok=True)
    children = []
    for core in cores():
        own = numbers[cores().index(core) :: len(cores())]
        process = os.fork()
        if not process:
            code = 1
            try:
                if hasattr(os, "sched_setaffinity"):
                    os.sched_setaffinity(0, {core})
                _work(trial, own, results)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(process)
    _tell(children, len(numbers), results, task)
    outcomes = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    assert len(outcomes) == len(numbers), f"{task}: {len(outcomes)} of {len(numbers)} trials finished"
    return outcomes


def _work(trial: Trial, numbers: list[int], results: Path) -> None:
    for number in numbers:
        try:
            outcome = trial(number)
        except Exception as error:
            outcome = {"number": number, "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        partial = results / f"{number:06d}.part"
        partial.write_text(json.dumps(outcome))
        partial.rename(results / f"{number:06d}.json")


def _tell(children: list[int], total: int, results: Path, task: str) -> None:
    last = 0.0
    while children:
        children = [process for process in children if os.waitpid(process, os.WNOHANG)[0] == 0]
        if time.monotonic() - last > 15 or not children:
            last = time.monotonic()
            print(f"{task}: {len(list(results.glob('*.json')))} of {total}", file=sys.stderr, flush=True)
        time.sleep(0.05)
