"""Logits -> the next token.

The filters mean what they mean in transformers, and come in its order: repetition penalty, temperature, top-k, top-p,
min-p. Sources: Keskar et al. 2019 (repetition penalty), Fan et al. 2018 (top-k), Holtzman et al. 2019 (top-p),
Nguyen et al. 2024 (min-p).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from acorn.errors import DamageError, UsageError

COLDEST = 1e-5
"""Temperatures below this are greedy: logits divided by them leave fp32's range."""

NUCLEUS_GUESS = 1024
"""Entries among which top-p looks first; sorting a whole vocabulary takes longer than all other filters together."""


@dataclass(frozen=True)
class SamplingSettings:
    """How text is drawn.

    Attributes:
        max_new_tokens: tokens to draw at most.
        temperature: logits are divided by it; 0: greedy.
        top_k: only the k most likely tokens; 0, or more than the vocabulary: all.
        top_p: only the most likely tokens that together reach this probability; 1: all.
        min_p: only tokens at least this share as likely as the most likely one; 0: all.
        repetition_penalty: makes tokens that were already there less likely; 1: no penalty.
        seed: equal seeds give equal text; None: another one each time.
        greedy: always the most likely token.
        stop: the text ends before the first of these strings.
        ignore_eos: go on after the document separator.

    Raises:
        UsageError: a value without meaning.
    """

    max_new_tokens: int = 200
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    greedy: bool = False
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        # Each test is written so that NaN fails it.
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "0 (greedy) or more, and finite")
        _require(self.top_k >= 0, "top_k", self.top_k, "0 (all tokens) or more")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, and 1 (all tokens) or less")
        _require(0 <= self.min_p < 1, "min_p", self.min_p, "0 (all tokens) or more, and below 1")
        _require(
            0 < self.repetition_penalty < math.inf,
            "repetition_penalty",
            self.repetition_penalty,
            "above 0 and finite (1: no penalty)",
        )
        _require("" not in self.stop, "stop", "an empty string", "a string of at least one character")

    @property
    def is_greedy(self) -> bool:
        return self.greedy or self.temperature < COLDEST


def _require(fits: bool, name: str, value: object, meaning: str) -> None:
    if not fits:
        raise UsageError(f"{name} cannot be {value}.", where=name, mend=f"give {meaning}")


def generator_for(seed: int, index: int) -> torch.Generator:
    """The random numbers of prompt number `index`: a function of both numbers alone, on the CPU for every device."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def next_token(
    logits: Tensor,
    seen: Sequence[Sequence[int]],
    settings: SamplingSettings,
    generators: Sequence[torch.Generator],
    banned: Tensor | None = None,
) -> Tensor:
    """Chooses the next token of each sequence, by itself: no sequence's choice depends on another.

    Args:
        logits: (B, V).
        seen: ids of each sequence so far, prompt included.
        generators: one for each sequence; one number is drawn from each, unless the choice is greedy.
        banned: ids never to be chosen.

    Returns:
        ids (B,), on the CPU.

    Raises:
        DamageError: logits are not finite.
    """
    scores = allowed_scores(logits, seen, settings, banned)
    if settings.is_greedy:
        return scores.argmax(-1).cpu()
    weights = filtered(scores, settings).exp().cpu().double()  # (B, V); exact sums keep the draw equal on every device
    reached = weights.cumsum(-1)
    draws = torch.stack([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])  # (B, 1)
    tokens = torch.searchsorted(reached, draws * reached[:, -1:], right=True)
    # Rounding may put a draw at the very end of the scale, behind the last token of any weight.
    last = (reached < reached[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum(tokens, last)[:, 0]


def allowed_scores(
    logits: Tensor, seen: Sequence[Sequence[int]], settings: SamplingSettings, banned: Tensor | None
) -> Tensor:
    """Logits (B, V) in fp32 after the repetition penalty, with -inf for banned ids."""
    if not torch.isfinite(logits.amax(-1)).all():  # the largest is NaN where any is
        raise DamageError(
            "The model's logits are not finite numbers.",
            where="the weights of the model, or the precision it computes in",
            mend="use another checkpoint; with fp16, try --precision fp32",
        )
    scores = logits.float()
    if banned is not None:
        scores = scores.index_fill(-1, banned, -math.inf)
    if settings.repetition_penalty != 1:
        scores = scores.clone()
        for row, ids in zip(scores, seen, strict=True):
            index = torch.tensor(sorted(set(ids)), device=scores.device)
            old = row[index]
            row[index] = torch.where(old < 0, old * settings.repetition_penalty, old / settings.repetition_penalty)
    return scores


def filtered(scores: Tensor, settings: SamplingSettings) -> Tensor:
    """Temperature, top-k, top-p, min-p: log-weights (B, V), 0 for the likeliest token, -inf for those left out."""
    scores = (scores - scores.amax(-1, keepdim=True)) / settings.temperature
    if 0 < settings.top_k < scores.size(-1):
        smallest = scores.topk(settings.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < smallest, -math.inf)
    if settings.top_p < 1:
        probabilities = scores.softmax(-1)
        scores = scores.masked_fill(probabilities < _least_of_nucleus(probabilities, settings.top_p), -math.inf)
    if settings.min_p > 0:
        scores = scores.masked_fill(scores < math.log(settings.min_p), -math.inf)
    return scores


def _least_of_nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest probability within top-p (B, 1): a token is in while those above it have not reached `top_p`."""
    largest = probabilities.topk(min(NUCLEUS_GUESS, probabilities.size(-1))).values  # largest first
    if (largest.sum(-1) < top_p).any():
        largest = probabilities.sort(descending=True).values
    largest = largest.cpu()  # cumulative sums on a GPU do not repeat bit for bit
    above = largest.cumsum(-1) - largest
    inside = (above < top_p).sum(-1, keepdim=True)
    return largest.gather(-1, (inside - 1).clamp(min=0)).to(probabilities.device)
