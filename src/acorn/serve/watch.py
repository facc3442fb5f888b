"""What a run folder tells while the run is training: its config, curve, samples and checkpoints.

Nothing here asks the engine or opens a model. A change is noticed by the size of a file, and only new lines are read,
so that a page that is left open costs the training next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from acorn.files import read_json
from acorn.run_folder import RunFolder

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_SIGNS = 14.0
"""Seconds without news after which a sign is sent, so that proxies keep the connection."""

MOST_POINTS = 600
"""Points of a curve that are sent; more cannot be told apart on a screen."""

MOST_SAMPLES = 60
LONGEST_READ = 4 << 20
"""Bytes that are read of a file at a time."""

POINT_FIELDS = ("step", "tokens", "seconds", "loss", "bits_per_byte", "lr", "tokens_per_second")


class Tail:
    """Reads the lines that were added to a file of JSON lines.

    Attributes:
        offset: bytes that were read.
        is_cut: the file became shorter than what was read, as when a run resumes. What was read is void: the reader
            starts over.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.offset, self.is_cut = path, offset, False

    def read(self) -> list[dict[str, Any]]:
        """The new records; a line that is not whole yet waits for the next time, and one that is no object is left
        out. At most LONGEST_READ bytes; the rest follows."""
        self.is_cut = False
        try:
            size = os.stat(self.path).st_size
        except OSError:
            size = 0
        if size < self.offset:
            self.offset, self.is_cut = 0, True
        if size == self.offset:
            return []
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                block = file.read(LONGEST_READ)
        except OSError:
            return []
        end = block.rfind(b"\n") + 1
        self.offset += end
        return [record for line in block[:end].splitlines() if isinstance(record := _parsed(line), dict)]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def point_of(record: dict[str, Any]) -> dict[str, Any]:
    """The figures of a record of metrics.jsonl that a curve shows. A loss that is not finite is left out."""
    return {
        name: value
        for name in POINT_FIELDS
        if isinstance(value := record.get(name), int | float) and math.isfinite(value)
    }


def sample_of(record: dict[str, Any]) -> dict[str, Any]:
    """A record of samples.jsonl, with all of its fields."""
    step = record.get("step")
    texts = {name: str(record.get(name, "")) for name in ("prompt", "text")}
    return {"step": step if isinstance(step, int) else 0, **texts}


def thinned(points: Sequence[dict[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """At most `most` points: each is the mean of those of an equal stretch, at the last one's place."""
    if len(points) <= most:
        return list(points)
    stretches = [points[len(points) * n // most : len(points) * (n + 1) // most] for n in range(most)]
    return [{**stretch[-1], **_means(stretch)} for stretch in stretches]


def _means(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    found = {}
    for name in ("loss", "bits_per_byte"):
        values = [point[name] for point in points if name in point]
        if values:
            found[name] = sum(values) / len(values)
    return found


def run_facts(run: RunFolder) -> dict[str, Any]:
    """What is known of a run now: the answer of GET /v1/run. Reads all of its metrics; for a worker thread."""
    metrics, samples = Tail(run.metrics), Tail(run.samples)
    records = list(_all(metrics))
    texts = list(_all(samples))
    return {
        "name": run.root.absolute().name,
        "folder": str(run.root),
        "sample_prompts": _sample_prompts(run),
        "is_finished": run.final.is_dir(),
        "train": thinned([point_of(record) for record in records if record.get("split") == "train"]),
        "valid": thinned([point_of(record) for record in records if record.get("split") == "valid"]),
        "samples": [sample_of(record) for record in texts[-MOST_SAMPLES:]],
        "checkpoints": run.checkpoint_steps(),
        "best": _best(run),
        "offsets": {"metrics": metrics.offset, "samples": samples.offset},
    }


def _all(tail: Tail) -> Iterator[dict[str, Any]]:
    while records := tail.read():
        yield from records


def _sample_prompts(run: RunFolder) -> list[str]:
    try:
        prompts = tomllib.loads(run.config.read_text("utf-8"))["train"]["sample_prompts"]
        return [prompt for prompt in prompts if isinstance(prompt, str)]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # it may be of another version of acorn
        return []


def _best(run: RunFolder) -> int | None:
    try:
        step = read_json(run.best).get("step")
    except Exception:  # it is being replaced, or there is none: then no best checkpoint is shown
        return None
    return step if isinstance(step, int) else None


async def run_events(
    run: RunFolder,
    metrics_offset: int,
    samples_offset: int,
    is_stopping: Callable[[], bool],
    pause: Callable[[float], Any] = asyncio.sleep,
) -> AsyncIterator[dict[str, Any]]:
    """What happens in a run folder, as objects with the keys `train`, `valid`, `samples`, `checkpoints`, `finished`;
    `restart`: the files were cut back, so that the page asks for all facts again; none: nothing happened for a while.

    Args:
        metrics_offset, samples_offset: bytes of the files that the page knows.
        is_stopping: ends the stream.
        pause: waits for a number of seconds; tests give their own.
    """
    metrics, samples = Tail(run.metrics, metrics_offset), Tail(run.samples, samples_offset)
    seen_steps, was_finished, quiet = run.checkpoint_steps(), run.final.is_dir(), 0.0
    while not is_stopping():
        news: dict[str, Any] = {}
        records, texts = metrics.read(), samples.read()
        if metrics.is_cut or samples.is_cut:
            yield {"restart": True}
            return
        for split in ("train", "valid"):
            points = [point_of(record) for record in records if record.get("split") == split]
            if points:
                news[split] = thinned(points)
        if texts:
            news["samples"] = [sample_of(record) for record in texts[-MOST_SAMPLES:]]
        if (steps := run.checkpoint_steps()) != seen_steps:
            news["checkpoints"] = seen_steps = steps
        if (is_finished := run.final.is_dir()) != was_finished:
            news["finished"] = was_finished = is_finished
        quiet = 0.0 if news else quiet + SECONDS_BETWEEN_LOOKS
        if news or quiet > SECONDS_BETWEEN_SIGNS:
            quiet = 0.0
            yield news
        await pause(SECONDS_BETWEEN_LOOKS)
