"""Starts contenders, lets them work in turns, and computes medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Contender:
    """One program with one task.

    Attributes:
        name: its name in tables.
        module: the module of `contenders/` to run.
        specification: its JSON specification: what to build and do.
        python: the interpreter of its environment.
        turns: its answer for each turn.
        ready: its answer after warming up.
        failure: why it could not be measured; empty if it could.
    """

    name: str
    module: str
    specification: dict[str, Any]
    python: str = sys.executable
    turns: list[dict[str, Any]] = field(default_factory=list)
    ready: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def rates(self) -> list[float]:
        """Tokens per second of each turn."""
        return [turn["tokens"] / turn["seconds"] for turn in self.turns]

    @property
    def rate(self) -> float:
        """Median over the turns; 0 without any."""
        return statistics.median(self.rates) if self.turns else 0.0

    @property
    def peak_bytes(self) -> int:
        return max((turn["peak_bytes"] for turn in self.turns), default=0)

    def facts(self) -> dict[str, Any]:
        """The results for the JSON file."""
        if self.failure:
            return {"name": self.name, "failure": self.failure}
        known = ("seconds", "tokens", "peak_bytes")
        return {
            "name": self.name,
            "tokens_per_second": self.rate,
            "each_turn": self.rates,
            "peak_bytes": self.peak_bytes,
            "first_seconds": self.ready.get("first_seconds"),
            "more": {key: value for key, value in self.turns[-1].items() if key not in known},
        }


class _Process:
    """A running contender. Its stderr goes to a file, whose last line is reported if it fails."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
        self._process = subprocess.Popen(
            [contender.python, "-m", f"benchmarks.contenders.{contender.module}", json.dumps(contender.specification)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, count: int = 0) -> dict[str, Any] | None:
        """The next answer, after asking for `count` units of work unless that is 0. None if the contender has ended."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            if count:
                self._process.stdin.write(f"{count}\n")
                self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, json.JSONDecodeError):
            self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read().decode(errors="replace").strip().splitlines()
            self.contender.failure = errors[-1] if errors else f"ended with exit code {self._process.returncode}"
            return None
        return dict(answer)

    def end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def take_turns(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    seconds: float,
    say: Any,
    before_round: Callable[[], object] = lambda: None,
) -> None:
    """Every contender works for about `seconds` in each of `rounds` rounds; the order is reversed in every other round.

    They warm up one after the other. A first turn, which is not counted, measures how many units of work fill the time.

    Args:
        say: is called with lines of progress.
        before_round: is called before each round.
    """
    processes = []
    counts: dict[str, int] = {}
    try:
        for contender in contenders:
            say(f"{contender.name}: warming up")
            try:
                process = _Process(contender)
            except OSError as error:
                contender.failure = str(error)
                continue
            processes.append(process)
            ready = process.ask()
            first = process.ask(1) if ready else None
            if ready and first:
                contender.ready = ready
                counts[contender.name] = max(1, round(seconds / first["seconds"]))
            else:
                say(f"{contender.name}: not measured: {contender.failure}")
        for number in range(rounds):
            before_round()
            order = processes if number % 2 == 0 else processes[::-1]
            for process in order:
                contender = process.contender
                if contender.failure:
                    continue
                time.sleep(0.2)  # the previous contender's threads may still be spinning
                answer = process.ask(counts[contender.name])
                if answer:
                    contender.turns.append(answer)
            say(
                f"round {number + 1} of {rounds}: "
                + ", ".join(f"{c.name} {c.rates[-1]:,.0f}" for c in contenders if c.turns)
                + " tokens/s"
            )
    finally:
        for process in processes:
            process.end()
