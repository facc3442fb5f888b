"""The public Python names. Everything here is also reachable as `acorn.<name>`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from acorn.checkpoint.load import load as load_model
from acorn.config_files import build_config, load_config
from acorn.errors import AcornError
from acorn.generate.engine import Generation, generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.report.terminal import Screen, TaskProgress, TrainingLine
from acorn.text.splits import TextSplits
from acorn.tokenizer import tokenizer as tokenizers
from acorn.tokenizer.training import train
from acorn.train import pretrain as training
from acorn.train.pretrain import PretrainResult as Run

__all__ = ["AcornError", "LanguageModel", "Run", "Tokenizer", "load", "pretrain"]


class Tokenizer(tokenizers.Tokenizer):
    """A tokenizer that can also be trained from sources."""

    @classmethod
    def train(
        cls,
        sources: Sequence[str],
        *,
        kind: Literal["wordpiece", "bpe"] = "bpe",
        vocab_size: int = 8192,
        clean: Literal["none", "wikitext"] = "none",
    ) -> Tokenizer:
        """Trains on the training share of `sources` (files, globs, folders, `hf:...`, `bundled:wikitext-2`).

        Raises:
            UsageError, InputError: as `acorn tokenizer train`.
        """
        texts = TextSplits.open(build_config({"data": {"source": list(sources), "clean": clean}}, "the arguments").data)
        trained = train(
            lambda: (document.text for document in texts.documents("train")),
            kind,
            vocab_size,
            entries=texts.entries(kind),
        )
        tokenizer = cls.from_json(trained.to_json())
        assert isinstance(tokenizer, cls)
        return tokenizer


class LanguageModel:
    """A trained model with its tokenizer.

    Attributes:
        model: the network, a torch module in eval mode.
        tokenizer: text to ids and back.
        end_ids: tokens with which a text ends, beside the tokenizer's separator.
    """

    def __init__(self, model: GPT, tokenizer: tokenizers.Tokenizer, end_ids: Sequence[int] = ()) -> None:
        self.model, self.tokenizer, self.end_ids = model, tokenizer, tuple(end_ids)

    def generate(self, prompt: str = "", **settings: Any) -> str:
        """`prompt` and what the model writes after it. Settings are those of `SamplingSettings`."""
        return self.generations([prompt], **settings)[0].text

    def generations(self, prompts: Sequence[str], **settings: Any) -> list[Generation]:
        """Several prompts at once, each with its ids, its reason to end and its timing."""
        if isinstance(settings.get("stop"), str | list):
            stop = settings["stop"]
            settings["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        return generate(self.model, self.tokenizer, list(prompts), SamplingSettings(**settings), end_ids=self.end_ids)


def pretrain(
    config: str | Path,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a model: a preset's name or TOML file, `key=value` overrides, the run folder (by default runs/<name>).

    Progress is shown on stderr, unless `quiet`.

    Raises:
        AcornError: as `acorn pretrain`; its `exit_code` tells the kinds apart.
    """
    resolved = load_config(config, overrides)
    folder = Path(out) if out else Path("runs") / resolved.name
    if quiet:
        return training.pretrain(resolved, folder, resume=resume)
    screen = Screen()
    progress, line = TaskProgress(screen), TrainingLine(resolved.train.steps, screen)
    with contextlib.closing(progress), contextlib.closing(line):
        return training.pretrain(resolved, folder, resume=resume, watcher=line, progress=progress)


def load(run: str | Path, checkpoint: str | None = None, device: str = "cpu") -> LanguageModel:
    """Loads a run folder (its final model, else its newest checkpoint), a checkpoint, or a model folder.

    Raises:
        AcornError: nothing can be loaded from there.
    """
    loaded = load_model(run, checkpoint, device)
    return LanguageModel(loaded.model, loaded.tokenizer, loaded.end_ids)
