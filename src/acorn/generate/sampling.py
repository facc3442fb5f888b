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

NUCLEUS_FLOORS = (1e-3, 1e-5, 0.0)
"""Least probabilities of the entries among which top-p looks, one after the other: sorting a whole vocabulary takes
longer than all other filters together."""


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
    rows = zip(scores.cpu(), generators, strict=True)
    return torch.stack([_draw(*candidates(row, settings), generator) for row, generator in rows])


def _draw(ids: Tensor, log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """One of the ids (N,), each as likely as its weight says; a scalar."""
    weights = log_weights.exp().double()  # exact sums keep the draw equal on every device
    reached = weights.cumsum(-1)
    draw = torch.rand(1, generator=generator, dtype=torch.float64)
    place = torch.searchsorted(reached, draw * reached[-1], right=True)
    # Rounding may put a draw at the very end of the scale, behind the last token of any weight.
    return ids[torch.minimum(place, torch.searchsorted(reached, reached[-1]))[0]]


def allowed_scores(
    logits: Tensor, seen: Sequence[Sequence[int]], settings: SamplingSettings, banned: Tensor | None
) -> Tensor:
    """Logits (B, V) in fp32 after the repetition penalty, with -inf for banned ids."""
    if not all(map(math.isfinite, logits.amax(-1).tolist())):  # the largest is NaN where any is
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


def candidates(scores: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """Temperature, top-k, top-p, min-p: the tokens left of a vocabulary.

    Args:
        scores: (V,).

    Returns:
        their ids, in order, and their log-weights, 0 for the likeliest; both (N,).
    """
    ids = torch.arange(len(scores))
    scores = (scores - scores.amax()) / settings.temperature

    def keep(inside: Tensor) -> None:
        nonlocal ids, scores
        places = inside.nonzero()[:, 0]
        ids, scores = ids[places], scores[places]

    if 0 < settings.top_k < len(scores):
        keep(scores >= scores.topk(settings.top_k).values[-1])
    if settings.top_p < 1:
        probabilities = scores.softmax(-1)
        keep(probabilities >= _least_of_nucleus(probabilities, settings.top_p))
    if settings.min_p > 0:
        keep(scores >= math.log(settings.min_p))
    return ids, scores


def _least_of_nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """The smallest probability within top-p: a token is in while those above it have not reached `top_p`."""
    for floor in NUCLEUS_FLOORS:
        largest = probabilities[probabilities >= floor]
        if largest.sum() >= top_p:
            break
    largest = largest.sort(descending=True).values
    above = largest.cumsum(-1) - largest
    return largest[(above < top_p).sum().clamp(min=1) - 1]
