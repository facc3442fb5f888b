"""A contender's side of the protocol with `benchmarks.turns`: it answers each line of input with a line of JSON.

It sends {"ready": true, ...} after warming up. A number n as input means: do n units of work. The answer is
{"seconds", "tokens", "peak_bytes", ...}. The process ends at the end of its input.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


class Answers:
    """The connection to the benchmark. Redirects what libraries print to stderr, so that it does not mix with
    answers."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def send(self, facts: dict[str, Any]) -> None:
        self._out.write(json.dumps(facts) + "\n")

    def next_count(self) -> int:
        """Requested units of work; 0 at the end of the input."""
        return int(sys.stdin.readline() or 0)


def specification() -> dict[str, Any]:
    """The JSON specification on the command line: what to build and do."""
    return json.loads(sys.argv[1])


def peak_bytes(device: str = "cpu") -> int:
    """Peak memory of this process: GPU memory if it computes there, else resident memory."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    try:  # Linux. ru_maxrss would include the program that started this one.
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def answer(work: Callable[[], dict[str, float]], *, warm_up: int, device: str = "cpu") -> None:
    """Warms up, then does the requested units of work until the input ends.

    Args:
        work: does one unit; returns figures ("tokens", ...), which are summed over the units, except the last "loss".
    """
    answers = Answers()
    begin = time.perf_counter()
    work()
    first = time.perf_counter() - begin
    for _ in range(warm_up - 1):
        work()
    answers.send({"ready": True, "first_seconds": first})
    while count := answers.next_count():
        begin = time.perf_counter()
        total: dict[str, float] = {}
        for _ in range(count):
            for name, value in work().items():
                total[name] = value if name == "loss" else total.get(name, 0) + value
        answers.send({"seconds": time.perf_counter() - begin, "peak_bytes": peak_bytes(device), **total})


def answer_in_turns(ways: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Does the specification's "way" once for each number in the input; "tokens" counts "bytes" of text here."""
    spec = specification()
    answers = Answers()
    answers.send({"ready": True})
    while answers.next_count():
        begin = time.perf_counter()
        facts = ways[spec["way"]](spec)
        answers.send({"seconds": time.perf_counter() - begin, "tokens": spec["bytes"], **facts})
