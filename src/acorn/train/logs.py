"""Where a run records what it does: metrics.jsonl, samples.jsonl, trackers, and who watches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from acorn.checkpoint.training_state import Counters
from acorn.config import Config
from acorn.report.metrics_log import JsonLines
from acorn.report.trackers import Trackers, open_trackers
from acorn.run_folder import RunFolder
from acorn.train.watcher import Watcher


@dataclass(frozen=True)
class Logs:
    """The open logs of a run.

    Every method but `note` raises ResourceError where the disk is full or cannot be written.
    """

    metrics: JsonLines
    samples: JsonLines
    trackers: Trackers
    watcher: Watcher

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        """Records a training step. `done`: share of the run; `seconds_left`: None where that is not known."""
        self._measured(record)
        self.watcher.step(record, done, seconds_left)

    def valid(self, record: Mapping[str, Any]) -> None:
        """Records a validation."""
        self._measured(record)
        self.watcher.valid(record)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Records a text drawn from the model."""
        self.samples.write({"step": step, "prompt": prompt, "text": text})
        self.watcher.sample(step, prompt, text)

    def note(self, text: str) -> None:
        self.watcher.note(text)

    def sync(self, counters: Counters) -> None:
        """Flushes both files to the disk, and puts their lengths into `counters`."""
        self.metrics.sync()
        self.samples.sync()
        counters.metrics_bytes, counters.samples_bytes = self.metrics.length, self.samples.length

    def cut_to(self, counters: Counters) -> list[str]:
        """Cuts both files back to the lengths in `counters`. Returns the names of those that are shorter already."""
        return _cut(self.metrics, self.samples, counters)

    def _measured(self, record: Mapping[str, Any]) -> None:
        self.metrics.write(record)
        self.trackers.log(record["step"], record["split"], record)


@contextlib.contextmanager
def open_logs(
    run: RunFolder, config: Config, counters: Counters, watcher: Watcher, note: Callable[[str], None]
) -> Iterator[Logs]:
    """Opens the logs of a run, cut back to where `counters` are.

    Args:
        note: hears of lines that are missing, and of trackers that fail.

    Raises:
        ResourceError: the disk is full or cannot be written.
        MissingPackageError: a tracker's package is not installed.
    """
    with contextlib.ExitStack() as stack:
        metrics = stack.enter_context(contextlib.closing(JsonLines(run.metrics)))
        samples = stack.enter_context(contextlib.closing(JsonLines(run.samples)))
        for name in _cut(metrics, samples, counters):
            note(f"{name} is shorter than the checkpoint remembers; the missing lines stay missing.")
        trackers = open_trackers(config.report.trackers, config.name, run.root, config.model_dump(), note)
        stack.enter_context(contextlib.closing(trackers))
        yield Logs(metrics, samples, trackers, watcher)


def _cut(metrics: JsonLines, samples: JsonLines, counters: Counters) -> list[str]:
    lengths = (metrics, counters.metrics_bytes), (samples, counters.samples_bytes)
    return [log.path.name for log, length in lengths if log.cut_to(length)]
