"""Pauses a training loop that is not ours to write between its steps, and counts its trained tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.contenders.answering import Answers, peak_bytes


class Turns:
    """Answers for a program that calls `after_step` after each optimizer step.

    Args:
        warm_up: steps before the first answer.
        counts: trained tokens of each step.
    """

    def __init__(self, answers: Answers, warm_up: int, counts: Iterator[int]) -> None:
        self._answers, self._counts = answers, counts
        self._left = warm_up
        self._is_warm = False
        self._losses: list[float] = []
        self._start()

    def _start(self) -> None:
        self._tokens, self._begin, self._cpu_begin = 0, time.perf_counter(), time.process_time()

    def after_step(self, loss: float | None = None) -> bool:
        """False if no more steps are asked for."""
        self._tokens += next(self._counts)
        self._left -= 1
        if loss is not None:
            self._losses.append(loss)
        if self._left:
            return True
        if self._is_warm:
            self._answers.send(self._facts())
        else:
            self._answers.send({"ready": True, "losses": list(self._losses)})
            self._is_warm = True
        self._left = self._answers.next_count()
        self._start()
        return self._left > 0

    def _facts(self) -> dict[str, Any]:
        return {
            "seconds": time.perf_counter() - self._begin,
            "cpu_seconds": time.process_time() - self._cpu_begin,
            "tokens": self._tokens,
            "peak_bytes": peak_bytes(),
        }
