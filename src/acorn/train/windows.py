"""The data of pretraining: windows of a tokenized text, in an order that depends on the run's seed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from dataclasses import dataclass

from acorn.config import Config
from acorn.data.batches import read_batch
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenSequence, TokenShards
from acorn.evaluate.bits_per_byte import bits_per_byte_of
from acorn.evaluate.validation import score
from acorn.generate.engine import generate
from acorn.generate.settings import SamplingSettings
from acorn.model.gpt import GPT
from acorn.progress import Progress
from acorn.runtime.device import Runtime
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.train.schedule import context_at
from acorn.train.training_data import Batch, Score

SAMPLE_SETTINGS = SamplingSettings(temperature=0.8, top_k=50, seed=0, ignore_eos=True)
"""ignore_eos, because an early model often ends a document at once, and an empty sample shows nothing."""


@dataclass(frozen=True)
class RunText:
    """The text of a run: its tokenizer and its token shards."""

    tokenizer: Tokenizer
    shards: TokenShards


@dataclass(frozen=True)
class Windows:
    """A `TrainingData` whose samples are windows of block_size + 1 tokens."""

    text: RunText
    config: Config

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.tokenizer

    @functools.cached_property
    def _tokens(self) -> TokenSequence:
        return self.text.shards.tokens("train")

    @functools.cached_property
    def _order(self) -> SampleOrder:
        """The order of a run without rollbacks."""
        return SampleOrder(
            n_tokens=len(self._tokens),
            block_size=self.config.model.block_size,
            seed=self.config.train.seed,
            shard_starts=tuple(int(start) for start in self._tokens.shard_starts),
            shuffle_group=self.config.data.shuffle_group,
        )

    def batch(self, first: int, count: int, *, rollbacks: int, done: float) -> Batch:
        """Windows `first` to `first + count - 1`; early in a run each may be split into shorter ones."""
        order = dataclasses.replace(self._order, rollbacks=rollbacks)
        context = context_at(self.config.schedule, self.config.model.block_size, done)
        inputs, targets = read_batch(self._tokens, order, first, count)
        inputs, targets = inputs.reshape(-1, context), targets.reshape(-1, context)
        rows = (self.config.train.micro_batch_size or count) * (self.config.model.block_size // context)
        return Batch.of_windows(inputs, targets, rows)

    def epochs(self, samples: int) -> float:
        """Epochs completed after so many samples; every window is seen once per epoch."""
        return samples / self._order.n_windows

    def score(self, model: GPT, runtime: Runtime, progress: Progress) -> Score:
        """Scores the validation split, or its first train.eval_tokens tokens."""
        loss_sum, count = score(
            model,
            self.text.shards.tokens("valid"),
            context=self.config.model.block_size,
            autocast=runtime.autocast,
            limit=self.config.train.eval_tokens or None,
            progress=progress,
        )
        return Score(loss_sum, count)

    def samples(self, model: GPT, runtime: Runtime, progress: Progress) -> list[tuple[str, str]]:
        """Continues the prompts of train.sample_prompts."""
        train = self.config.train
        drawn = itertools.count()

        def report() -> None:
            progress.at("Sampling", next(drawn), train.sample_tokens, "tokens")

        settings = dataclasses.replace(SAMPLE_SETTINGS, max_new_tokens=train.sample_tokens)
        with runtime.autocast():
            prompts = list(train.sample_prompts)
            results = generate(model, self.tokenizer, prompts, settings, before_token=report)
        progress.end("Sampling")
        return [(result.prompt, result.text) for result in results]

    def figures(self, split: str, loss: float) -> dict[str, float]:
        """The loss in bits per byte of original text, computed as in `acorn evaluate`; empty if that reports none.

        A text of n tokens has n - 1 predictions, because the separator at its beginning is given. For a batch, or for a
        part of the split, this is an estimate, which uses the bytes per token of the whole split.
        """
        count = self.text.shards.count(split)
        rate = self.text.shards.unknown_rate(split)
        bits, _ = bits_per_byte_of(loss * (count.tokens - 1), count.bytes, rate)
        return {} if bits is None else {"bits_per_byte": bits}
