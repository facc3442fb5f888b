"""The programs that exports are made for; each one runs in a separate process (worker.py)."""

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
        module: name for `import`.
        extra: the extra of acorn-lm that installs it.
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
"""Format -> the program that checks its files."""


@dataclass(frozen=True)
class Question:
    """What a runtime has to compute.

    Attributes:
        texts: texts to encode as prompts.
        windows: token ids; the logits of every position are wanted.
        continuations: (prompt, acorn's continuation), both token ids; the most likely token at each position of the
            continuation is wanted.
        reader: of a model with a label head, whose outputs are wanted instead of logits: `sequence` (of a window's last
            token) or `token` (of every token). All windows are then computed in padded batches.
    """

    texts: Sequence[str]
    windows: Sequence[Sequence[int]]
    continuations: Sequence[tuple[Sequence[int], Sequence[int]]]
    reader: str = ""

    @property
    def longest(self) -> int:
        """Number of positions that the longest window or continuation needs."""
        lengths = [len(window) for window in self.windows]
        return max(lengths + [len(prompt) + len(ids) for prompt, ids in self.continuations])


@dataclass(frozen=True)
class Answer:
    """The answer of a runtime, in the order of the question; one tensor of logits (T, V) per window."""

    version: str
    tokens: list[list[int]]
    logits: list[Tensor]
    likeliest: list[list[int]]


def ask(runtime: Runtime, model: Path, question: Question) -> Answer:
    """Makes `runtime` load the file or folder `model` and answer `question`, without the network.

    Raises:
        DamageError: the runtime fails or crashes.
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
        # -P: files in the current folder are not imported instead of packages.
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
                where=f"the check in {runtime.name}",
                fix=f"try another --dtype, or another version of {runtime.name}; the export was removed",
            )
        answer = json.loads((folder / ANSWER).read_bytes())
        logits = {place: tensor.clone() for place, tensor in load_file(folder / LOGITS).items()}
    ordered = [logits[str(number)] for number in range(len(question.windows))]
    return Answer(answer["version"], answer["tokens"], ordered, answer["likeliest"])


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why a process failed: the name of the signal, otherwise the last line of its output."""
    if done.returncode < 0:
        return f"it crashed ({signal.Signals(-done.returncode).name})"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1][:300].rstrip(".") if said else f"it ended with exit code {done.returncode}"
