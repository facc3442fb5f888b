"""The text that a base model was trained on, as finetuning needs it: to replay it, and to see what is forgotten.

Forgetting is measured as the rise of the model's loss on the validation split of its base: before and after, on the
same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acorn.checkpoint.load import LoadedModel
from acorn.config import Config
from acorn.data.replay import Replay, exact_share
from acorn.data.token_shards import TokenShards
from acorn.errors import AcornError, UsageError
from acorn.evaluate.run_data import shards_of
from acorn.evaluate.validation import score
from acorn.files import sha256_of
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.run.start_folder import first_there
from acorn.run_folder import MANIFEST
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer

SCORED_TOKENS = 2**16
"""Tokens of the base's validation split that are scored at most: enough to tell a rise, in seconds."""

SPLIT = "valid"


@dataclass(frozen=True)
class BaseText:
    """The token shards of a base model's run.

    Attributes:
        manifest: the SHA-256 of their manifest, which names the content of every file.
    """

    shards: TokenShards
    manifest: str

    @property
    def tokens(self) -> int:
        """Tokens of the validation split that are predicted in all; 0 where the base has none."""
        return max(0, self.shards.count(SPLIT).tokens - 1) if SPLIT in self.shards.splits else 0

    @property
    def scored_tokens(self) -> int:
        """Those that are scored."""
        return min(self.tokens, SCORED_TOKENS)

    @property
    def part(self) -> str:
        """Which part is scored, in brackets; empty: all of it."""
        return "" if self.scored_tokens == self.tokens else f" (first {self.scored_tokens:,} of {self.tokens:,} tokens)"

    def loss(self, model: GPT, runtime: Runtime, progress: Progress) -> float:
        """The mean loss of a language model at the scored tokens, in nats."""
        total, count = score(
            model,
            self.shards.tokens(SPLIT),
            context=model.config.block_size,
            autocast=runtime.autocast,
            limit=SCORED_TOKENS,
            progress=progress,
            task="Scoring the base's text",
        )
        return total / count

    def replay(self, config: Config) -> Replay | None:
        """The windows that `finetune.replay` asks for; None: none."""
        if not config.finetune.replay:
            return None
        share = exact_share(config.finetune.replay)
        return Replay(self.shards.tokens("train"), share, config.model.block_size, config.train.seed)


@dataclass(frozen=True)
class Forgetting:
    """What finetuning makes a model forget of its base's text.

    Attributes:
        before: the base's loss there.
    """

    text: BaseText
    before: float

    @property
    def record(self) -> dict[str, Any]:
        """What checkpoints tell of the text and the base's loss there."""
        return {"manifest": self.text.manifest, "loss": self.before}

    @property
    def start_note(self) -> str:
        """What is said before the first step."""
        return f"The base's loss on its own validation text is {self.before:.4f}{self.text.part}."

    def figures(self, model: GPT, runtime: Runtime, progress: Progress) -> dict[str, float]:
        """The losses before and after, for the evaluation; without one that is not finite."""
        losses = {"base_loss_before": self.before, "base_loss_after": self.text.loss(model, runtime, progress)}
        return {name: loss for name, loss in losses.items() if math.isfinite(loss)}

    @property
    def note(self) -> str:
        """What is to be said of the figures; empty: nothing."""
        return f"Losses on the base's text are of its validation split{self.text.part}." if self.text.part else ""


def forgetting_of(
    text: BaseText | None, known: Mapping[str, Any], initial: LoadedModel | None, runtime: Runtime, progress: Progress
) -> Forgetting | None:
    """The base's loss on its own text; None where it cannot be measured, or is not finite.

    Args:
        known: what a checkpoint of the run tells (`Forgetting.record`); empty for a new run.
        initial: the base of a new run.
    """
    if text is None or not text.tokens:
        return None
    if known:
        return Forgetting(text, known["loss"])
    if initial is None:
        return None
    with runtime.start():
        loss = text.loss(initial.model.to(runtime.device), runtime, progress)
    return Forgetting(text, loss) if math.isfinite(loss) else None


def base_text(
    config: Config, tokenizer: Tokenizer, folders: Sequence[Path], known: Mapping[str, Any], progress: Progress
) -> BaseText | None:
    """The text of the base of a run that is finetuned to answer; None where the base has none, or not any more.

    Args:
        folders: where a relative path of the base is looked up.
        known: what a checkpoint of the run tells of the text (`Forgetting.record`); empty for a new run.

    Raises:
        UsageError: finetune.replay is set, and there is no such text, or another than the run began with.
    """
    base = Path(first_there(config.train.init_from, folders))
    try:
        shards = shards_of(base, tokenizer)
        found = BaseText(shards, sha256_of(shards.folder / MANIFEST))
    except AcornError as error:
        if config.finetune.replay:
            raise UsageError(
                f"The base's own text cannot be replayed. {error.what}",
                where="finetune.replay" if isinstance(error, UsageError) else f"finetune.replay; {error.where}",
                fix="leave finetune.replay out, or start from a run of acorn pretrain that has its token shards",
            ) from None
        if known or not isinstance(error, UsageError):  # else the base is no run that was trained on text
            progress.note(f"What the model forgets of the base's text is not measured: {error.what}")
        return None
    if not known or known["manifest"] == found.manifest:
        return found
    if config.finetune.replay:
        raise UsageError(
            f"The base's text is not that which the run began with: the SHA-256 of its {MANIFEST} was "
            f"{known['manifest']}, and is {found.manifest} now.",
            where=str(found.shards.folder / MANIFEST),
            fix="restore the base's token shards, or start a new run with --out",
        )
    progress.note("What the model forgets of the base's text is not measured: that text has changed since the start.")
    return None
