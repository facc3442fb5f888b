"""The programs that exported models are for, each asked in a process of its own (worker.py)."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from acorn.errors import DamageError
from acorn.export.worker import ANSWER, LOGITS, QUESTION


@dataclass(frozen=True)
class Runtime:
    """A program that loads exported models.

    Attributes:
        module: what Python imports it as.
        extra: brings it.
    """

    name: str
    module: str
    extra: str

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


RUNTIMES = {
    "hf": Runtime("transformers", "transformers", "transformers"),
    "gguf": Runtime("llama.cpp", "llama_cpp", "llama"),
}
"""Format -> the program that its files are checked in."""


@dataclass(frozen=True)
class Question:
    """What a runtime is asked.

    Attributes:
        texts: to encode as prompts.
        windows: ids whose logits are wanted at every position.
        continuations: (prompt, the ids that acorn goes on with); the likeliest token in the place of each is wanted.
    """

    texts: Sequence[str]
    windows: Sequence[Sequence[int]]
    continuations: Sequence[tuple[Sequence[int], Sequence[int]]]

    @property
    def longest(self) -> int:
        """Positions that the longest of these needs."""
        return max(
            *(len(window) for window in self.windows), *(len(prompt) + len(ids) for prompt, ids in self.continuations)
        )


@dataclass(frozen=True)
class Answer:
    """What it answered, in the same order; logits (T, V) a window."""

    version: str
    tokens: list[list[int]]
    logits: list[Tensor]
    likeliest: list[list[int]]


def ask(runtime: Runtime, model: Path, question: Question) -> Answer:
    """Has `runtime` load the file or folder `model` and answer `question`. It gets nothing from the network.

    Raises:
        DamageError: it could not, or crashed.
    """
    with tempfile.TemporaryDirectory(prefix="acorn-") as name:
        folder = Path(name)
        asked = {
            "runtime": runtime.name,
            "model": str(model),
            "longest": question.longest,
            **dataclasses.asdict(question),
        }
        (folder / QUESTION).write_text(json.dumps(asked), "utf-8")
        # -P: no file of the folder we happen to be in takes the place of a package.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "acorn.export.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            raise DamageError(
                f"{runtime.name} cannot use the exported model: {_ending(done)}.",
                where=f"its check in {runtime.name}",
                fix=f"nothing was kept; try another --dtype, or another version of {runtime.name}",
            )
        answer = json.loads((folder / ANSWER).read_bytes())
        logits = {place: tensor.clone() for place, tensor in load_file(folder / LOGITS).items()}
    ordered = [logits[str(number)] for number in range(len(question.windows))]
    return Answer(answer["version"], answer["tokens"], ordered, answer["likeliest"])


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    """How a process that failed ended: the name of its signal, else the last line that it said."""
    if done.returncode < 0:
        return f"it crashed ({signal.Signals(-done.returncode).name})"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1][:300].rstrip(".") if said else f"it ended with exit code {done.returncode}"
