"""The names of everything inside a run folder, in one place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Names shared by run folders, checkpoint folders and model folders.
CONFIG = "config.toml"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
STATE = "state.json"
MODEL_CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
BEST = "best.json"
SWEEP_RECORD, SWEEP_FORMAT = "sweep.json", "acorn-sweep"
_STEP_FOLDER = re.compile(r"step-([0-9]{8,})")


def step_of(name: str, *, exact: bool = True) -> int | None:
    """The step in the name of a checkpoint folder; None: the name is not one of a checkpoint.

    Args:
        exact: nothing may follow the number. Otherwise anything may, as in `step-00000012.old`, which an interrupted
            save leaves, or in a user's copy.
    """
    found = _STEP_FOLDER.fullmatch(name) if exact else _STEP_FOLDER.match(name)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the run folder at `root`. Nothing is created by asking for a path."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / CONFIG

    @property
    def tokenizer(self) -> Path:
        return self.root / TOKENIZER

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def sources(self) -> Path:
        """What tokenizer, shards and initial weights were made from; see `data/made_from.py`."""
        return self.root / "sources.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.root / "samples.jsonl"

    @property
    def evaluation(self) -> Path:
        """Figures of the finished model, one object per split, as `acorn evaluate --json` prints them."""
        return self.root / "evaluation.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        return self.checkpoints / BEST

    @property
    def final(self) -> Path:
        return self.root / "final"

    @property
    def adapter(self) -> Path:
        """What LoRA trained, in PEFT's form, without the base model; `final/` has both merged."""
        return self.root / "adapter"

    @property
    def predictions(self) -> Path:
        """What a finetuned model said of each held-out example, one JSON object a line."""
        return self.root / "predictions.jsonl"

    @property
    def confusion(self) -> Path:
        """The confusion matrix of a finetuned classifier."""
        return self.root / "confusion.png"

    @property
    def baseline(self) -> Path:
        """The folder of a run inside this one: the same network from random weights, to compare with."""
        return self.root / "baseline"

    @property
    def loss_picture(self) -> Path:
        return self.root / "loss.png"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def comparison(self) -> Path:
        """Default output of `acorn report` with --compare."""
        return self.root / "comparison.html"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint folder under its final name, oldest first. Not verified."""
        if not self.checkpoints.is_dir():
            return []
        found = (step_of(entry.name) for entry in self.checkpoints.iterdir() if entry.is_dir())
        return sorted(step for step in found if step is not None)


def run_of(folder: Path) -> RunFolder | None:
    """The run that contains a model folder or checkpoint; None for a folder outside any run."""
    for parent in (folder, *folder.absolute().parents[:2]):
        if RunFolder(parent).environment.exists():
            return RunFolder(parent)
    return None
