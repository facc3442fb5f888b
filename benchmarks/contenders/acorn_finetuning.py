"""Finetuning with acorn: the loop of `acorn finetune`, which is paused between steps until more are asked for."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acorn.run.finetune import finetune
from acorn.run.finetune_config import finetune_config
from acorn.train.watcher import Unwatched
from benchmarks.contenders.answering import Answers, specification
from benchmarks.contenders.counting import Turns


class Finished(BaseException):
    """No more steps are asked for. Nothing in acorn catches it."""


class Steps(Unwatched):
    """Is told of each step of the run."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def step(self, record: Mapping[str, Any], done: float, seconds_left: float | None) -> None:
        if not self.turns.after_step(float(record["loss"])):
            raise Finished


def main() -> None:
    spec = specification()
    counts = itertools.cycle(json.loads(Path(spec["counts"]).read_text()))
    turns = Turns(Answers(), spec["warm_up"], counts)
    config = finetune_config(
        spec["model"],
        [spec["rows"]],
        valid=[spec["valid"]],
        task="complete",
        lora=spec["lora_rank"],
        overrides=spec["settings"],
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            finetune(config, Path(folder) / "run", watcher=Steps(turns))
        except Finished:
            return


if __name__ == "__main__":
    main()
