"""Windows of a base model's own text among the samples of finetuning, so that the model does not forget it.

Which samples are windows, and which windows, are functions of the sample's number, as the order of samples is: batch
size and restarts are not inputs. Of the first n samples, the share rounded down are windows, so the share of each batch
is as exact as whole samples allow.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from acorn.data.batches import read_batch
from acorn.data.sample_order import SampleOrder
from acorn.data.token_shards import TokenSequence


@dataclass(frozen=True)
class Replay:
    """The windows of a run.

    Attributes:
        tokens: of the base model's training split.
        share: of the samples that are windows, in (0, 1).
        block_size: tokens that a window predicts.
        seed: the run's seed.
    """

    tokens: TokenSequence
    share: Fraction
    block_size: int
    seed: int

    def before(self, sample: int) -> int:
        """How many of the samples before `sample` are windows."""
        return sample * self.share.numerator // self.share.denominator

    def windows(self, first: int, count: int) -> range:
        """The numbers of the windows among the samples `first` to `first + count - 1`."""
        return range(self.before(first), self.before(first + count))

    def read(self, windows: range, rollbacks: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of windows, each (n, block_size), in the order after so many rollbacks."""
        order = dataclasses.replace(self._order, rollbacks=rollbacks)
        return read_batch(self.tokens, order, windows.start, len(windows))

    @functools.cached_property
    def _order(self) -> SampleOrder:
        """The order of a run without rollbacks."""
        starts = tuple(int(start) for start in self.tokens.shard_starts)
        return SampleOrder(len(self.tokens), self.block_size, self.seed, shard_starts=starts)


def exact_share(share: float) -> Fraction:
    """A share as it is written: 0.1 is a tenth, which no float is."""
    return Fraction(str(share))
