"""`acorn serve` in a process of its own, with a tiny model; and what the system and its own figures say of it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torture import web
from torture.runs import WORDS as TEXT
from torture.runs import Started, start
from torture.workers import cores

STARTS_WITHIN = 120.0
"""Seconds."""

WORDS = TEXT.split()

POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts one by one, as it needs them, for what would hold up its loop."""


class Usage(NamedTuple):
    """What a process uses: memory in MiB, threads, open files."""

    memory: float
    threads: int
    files: int


@dataclass
class Served:
    """A server that answers.

    Attributes:
        port: on 127.0.0.1.
    """

    process: Started
    port: int

    def usage(self) -> Usage:
        """What the server uses now; Linux alone says so."""
        folder = Path("/proc") / str(self.process.process)
        status = (folder / "status").read_text()
        memory, threads = (int(re.search(rf"^{name}:\s*(\d+)", status, re.M)[1]) for name in ("VmRSS", "Threads"))  # type: ignore[index]
        return Usage(round(memory / 1024, 1), threads, len(os.listdir(folder / "fd")))

    async def figure(self, name: str) -> float:
        """One of the figures of /metrics."""
        text = (await web.ask(self.port, web.get("/metrics"))).body.decode()
        found = re.search(rf"^{name} (\S+)$", text, re.M)
        assert found, f"no {name} in {text}"
        return float(found[1])

    def stop(self) -> int:
        """Ends it at once; returns its exit code."""
        self.process.send(signal.SIGTERM)
        self.process.send(signal.SIGTERM)
        return self.process.wait(time.monotonic() - self.process.began + 60)


def start_server(
    model: Path,
    log: Path,
    *options: str,
    limits: dict[str, Any] | None = None,
    prepare: Callable[[], None] = lambda: None,
    all_cores: bool = False,
) -> Served:
    """Starts `acorn serve` with the model in this folder, and waits until it is ready.

    Args:
        log: a file for what it prints.
        options: of the command.
        limits: instead of the server's own.
        prepare: called in the new process, before anything of the server is imported.
        all_cores: compute on all cores; otherwise on one, which is enough for a tiny model, and does not wait for
            threads that a busy machine holds up.
    """

    def before() -> None:
        from acorn.serve import limits as table

        table.LIMITS = dataclasses.replace(table.LIMITS, **limits or {})
        prepare()
        if not all_cores:
            os.sched_setaffinity(0, {random.choice(cores())})

    process = start(["serve", str(model), "--port", "0", *options], log, kind=None, prepare=before)
    while "The model is loaded." not in (text := log.read_text() if log.exists() else ""):
        assert process.poll() is None, f"the server ended with {process.code}: {text}"
        assert time.monotonic() - process.began < STARTS_WITHIN, f"the server did not start: {text}"
        time.sleep(0.01)
    port = re.search(r"at http://127\.0\.0\.1:(\d+)/", text)
    assert port, text
    return Served(process, int(port[1]))


def import_server() -> None:
    """Imports what servers need, so that forked ones start faster. Nothing of the server itself: its limits may change.
    Computes nothing: threads do not survive a fork. Call it before anything imports PyTorch."""
    from acorn.cli.main import _SPINS

    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # as the command does, in a process that loads PyTorch itself
    for name in (
        "acorn.checkpoint.load",
        "acorn.generate.engine",
        "acorn.report.terminal",
        "prometheus_client",
        "pydantic",
        "starlette.routing",
        "uvicorn",
    ):
        importlib.import_module(name)


def short_chunks(tokens: int) -> Callable[[], None]:
    """Makes a server read prompts in chunks of so many tokens, as it reads those of large models."""

    def prepare() -> None:
        from acorn.generate import stepper

        stepper.SHORTEST_CHUNK = stepper.LONGEST_CHUNK = tokens

    return prepare


def without_prefixes() -> None:
    """Makes a server read every prompt whole."""
    from acorn.generate.prefix_cache import PrefixCache

    PrefixCache.find = lambda self, ids, limit: []  # type: ignore[method-assign]


def both(*parts: Callable[[], None]) -> Callable[[], None]:
    """Calls all of them."""
    return lambda: [part() for part in parts] and None


def tiny_model(path: Path, block_size: int = 256) -> Path:
    """Writes a language model with random weights, one block, a byte-level BPE and a chat template. Returns `path`.

    In a process of its own: threads of PyTorch do not survive a fork, and whoever calls this forks later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if not process:
        code = 1
        try:
            _write_tiny_model(path, block_size)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(process, 0)[1] == 0
    return path


def _write_tiny_model(path: Path, block_size: int) -> None:
    from small_models import LINES, random_model_of

    from acorn.checkpoint.model_folder import write_model_folder
    from acorn.tokenizer.template_format import chat_format_of
    from acorn.tokenizer.training import train

    tokenizer = train(lambda: [*LINES, " ".join(WORDS)], "bpe", 340)
    model = random_model_of("modern", tokenizer.vocab_size, block_size, n_layer=1)
    format = chat_format_of(tokenizer)
    ends = [tokenizer.separator_id, *format.end_ids]
    write_model_folder(path, model, tokenizer, "A model for tests.\n", chat_template=format.template, end_ids=ends)


def growth(samples: Sequence[Usage]) -> float:
    """MiB by which memory grew from the second to the last fifth of the samples, by their medians."""
    fifth = max(1, len(samples) // 5)
    early, late = (sorted(one.memory for one in part) for part in (samples[fifth : 2 * fifth], samples[-fifth:]))
    return round(late[len(late) // 2] - early[len(early) // 2], 1)
