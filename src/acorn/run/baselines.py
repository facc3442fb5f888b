"""`acorn finetune --baselines`: the same network from random weights, as a second run inside the run's folder.

It has the run's examples, seed, length and settings. Both are runs with a life of their own, so the same command
resumes whichever was interrupted:

1. The run itself, to its end. Its model can be used from here on.
2. The baseline, in `RUN/baseline`. It takes everything from the finished run and needs neither base model nor rows.
3. The end of the run again, now with the figures of the baseline. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acorn.checkpoint.integrity import newest_whole_checkpoint
from acorn.checkpoint.load import LoadedModel
from acorn.checkpoint.training_state import Checkpoint, read_checkpoint
from acorn.config import Config, LoraConfig
from acorn.config_files import load_run_config, to_toml, with_values
from acorn.data.example_folder import ExampleFolder, copy_examples
from acorn.data.made_from import MadeFrom, write_made_from
from acorn.errors import UsageError
from acorn.files import write_file
from acorn.progress import QUIET, Progress
from acorn.run.examples import RunExamples
from acorn.run.finetune import Finetuning, finetune
from acorn.run.finetune_config import default_rate
from acorn.run.lifecycle import RunResult, start_or_resume
from acorn.run_folder import RunFolder
from acorn.runtime.address_space import check_address_space
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train.watcher import Watcher


def finetune_with_baseline(
    config: Config | None,
    out: Path,
    *,
    resume: bool = False,
    allow_change: Sequence[str] = (),
    overrides: Sequence[str] = (),
    command_line: str = "",
    watcher: Watcher | None = None,
    progress: Progress = QUIET,
) -> RunResult:
    """Finetunes a model, and then the same network from random weights, whose figures stand beside the model's.

    Args, Raises: as `finetune`.

    Raises:
        UsageError: the run also learns from the text of its base, which random weights have none of.
    """
    if config is not None:
        check_comparable(config)
    told: dict[str, Any] = {"command_line": command_line, "watcher": watcher, "progress": progress}
    result = finetune(
        config, out, resume=resume, allow_change=allow_change, overrides=overrides, with_baseline=True, **told
    )
    run = RunFolder(out)
    settings = load_run_config(run.config)
    check_comparable(settings)
    progress.note(f"Baseline: the same network from random weights, in {run.baseline}.")
    baseline = start_or_resume(RandomWeights(run), baseline_config(settings), run.baseline, resume=True, **told)
    ended = finetune(None, out, resume=True, with_baseline=True, **told)
    was_complete = result.was_complete and baseline.was_complete and ended.was_complete
    return RunResult(out, ended.step, ended.evaluation, was_complete)


def check_comparable(config: Config) -> None:
    """Refuses a run that cannot be compared with one from random weights.

    Raises:
        UsageError: a share of its batches is text of the base.
    """
    if config.finetune.replay:
        raise UsageError(
            "Replay keeps what the base model learned from its text. Random weights have learned nothing, so their "
            "run would be another one.",
            where="--baselines, finetune.replay",
            fix="leave one of them out",
        )


def baseline_config(config: Config) -> Config:
    """The config of the baseline of a run that was resolved to `config`: equal but for what a base model is needed for.

    All weights are trained, because adapters and frozen blocks are only useful on weights that know something. The
    learning rate is then as much lower than that of adapters as the defaults are.
    """
    whole = config.model_copy(update={"lora": LoraConfig()})
    changed = with_values(
        whole,
        {
            "name": f"{config.name}, random weights",
            "train.init_from": "",
            "train.init": "random",
            "tokenizer.vocab_size": config.model.vocab_size,  # what a new run would train; this one is given its own
            "finetune.freeze": 0,
            "optimizer.lr": config.optimizer.lr * default_rate(whole) / default_rate(config),
        },
    )
    return changed


class RandomWeights(Finetuning):
    """The `RunKind` of the baseline of a run.

    Args:
        trained: the run that it is compared with, which is finished.
    """

    def __init__(self, trained: RunFolder) -> None:
        super().__init__(with_baseline=True)
        self._trained = trained

    def check(self, config: Config) -> None:
        check_address_space("training", config.train.threads)

    def check_stored(self, config: Config, run: RunFolder) -> None:
        """It is of this kind, as its folder says."""

    def resume_command(self, run: RunFolder, *more: str) -> str:
        return super().resume_command(self._trained, *more)

    def given_by_base(
        self, checkpoint: Checkpoint | None, initial: LoadedModel | None
    ) -> tuple[Tokenizer, dict[str, Any]]:
        return super().given_by_base(checkpoint or self._last_checkpoint(), None)

    def examples(
        self,
        config: Config,
        run: RunFolder,
        checkpoint: Checkpoint | None,
        initial: LoadedModel | None,
        folders: Sequence[Path],
        progress: Progress,
        extra: Mapping[str, Any],
    ) -> RunExamples:
        """Those of the run that it is compared with; once it has a checkpoint, its own copy of them."""
        if checkpoint is not None:
            return super().examples(config, run, checkpoint, initial, folders, progress, extra)
        found = ExampleFolder.open(self._trained.data, progress)

        def keep() -> None:
            write_file(run.config, to_toml(config))
            write_made_from(run, MadeFrom())
            copy_examples(found, run.data)

        return RunExamples(found, keep)

    def _last_checkpoint(self) -> Checkpoint:
        found = newest_whole_checkpoint(self._trained)
        assert found is not None, "the run is finished"
        return read_checkpoint(found, weights_only=True)
