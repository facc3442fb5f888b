"""Samples the next token from logits.

The filters have the same meaning and order as in transformers: repetition penalty, temperature, top-k, top-p,
min-p. Sources: Keskar et al. 2019 (repetition penalty), Fan et al. 2018 (top-k), Holtzman et al. 2019 (top-p),
Nguyen et al. 2024 (min-p).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from acorn.errors import DamageError
from acorn.generate.settings import SamplingSettings

NUCLEUS_FLOORS = (1e-3, 1e-5, 0.0)
"""Probability thresholds above which top-p sorts entries, tried in this order: sorting a whole vocabulary takes longer
than all other filters together."""


def generator_for(seed: int, index: int) -> torch.Generator:
    """The random number generator of prompt `index`: depends on seed and index only; on the CPU for all devices."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def next_token(
    logits: Tensor,
    seen: Sequence[Sequence[int]],
    settings: SamplingSettings,
    generators: Sequence[torch.Generator],
    banned: Tensor | None = None,
) -> Tensor:
    """Chooses the next token of each sequence, independently of the other sequences.

    Args:
        logits: (B, V).
        seen: ids of each sequence so far, including the prompt.
        generators: one for each sequence; one random number is taken from each unless the choice is greedy.
        banned: ids that are never chosen.

    Returns:
        ids (B,), on the CPU.

    Raises:
        DamageError: logits, or logits after the repetition penalty, are not finite.
    """
    scores = allowed_scores(logits, seen, settings, banned)
    if settings.is_greedy:
        return scores.argmax(-1).cpu()
    rows = zip(scores.cpu(), generators, strict=True)
    return torch.stack([_draw(*candidates(row, settings), generator) for row, generator in rows])


def _draw(ids: Tensor, log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """Samples one of the ids (N,) with the given log-weights; returns a scalar."""
    weights = log_weights.exp().double()  # sums in double precision make the result equal on all devices
    reached = weights.cumsum(-1)
    draw = torch.rand(1, generator=generator, dtype=torch.float64)
    place = torch.searchsorted(reached, draw * reached[-1], right=True)
    # Rounding may put the random number beyond the last token with a nonzero weight.
    return ids[torch.minimum(place, torch.searchsorted(reached, reached[-1]))[0]]


def allowed_scores(
    logits: Tensor, seen: Sequence[Sequence[int]], settings: SamplingSettings, banned: Tensor | None
) -> Tensor:
    """Logits (B, V) in fp32 after the repetition penalty, with -inf for banned ids."""
    if not _are_finite(logits):
        raise DamageError(
            "The model's logits are not finite.",
            where="the model's weights, or its precision",
            fix="use another checkpoint; with fp16, try --precision fp32",
        )
    scores = logits.float()
    if banned is not None:
        scores = scores.index_fill(-1, banned, -math.inf)
    if settings.repetition_penalty != 1:
        scores = scores.clone()
        for row, ids in zip(scores, seen, strict=True):
            index = torch.tensor(sorted(set(ids)), dtype=torch.long, device=scores.device)
            old = row[index]
            row[index] = torch.where(old < 0, old * settings.repetition_penalty, old / settings.repetition_penalty)
        if not _are_finite(scores):
            raise DamageError(
                f"With repetition_penalty {settings.repetition_penalty}, the logits are not finite.",
                where="repetition_penalty",
                fix="use a value closer to 1 (no penalty)",
            )
    return scores


def _are_finite(scores: Tensor) -> bool:
    """Whether the maximum of each row (B, V) is finite; the maximum is NaN if any element is NaN."""
    return all(map(math.isfinite, scores.amax(-1).tolist()))


def candidates(scores: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The tokens that remain after temperature, top-k, top-p and min-p.

    Args:
        scores: (V,).

    Returns:
        their ids, ascending, and their log-weights, 0 for the most likely token; both (N,).
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
    """The smallest probability within top-p: tokens are kept until the more likely ones sum to `top_p`."""
    for floor in NUCLEUS_FLOORS:
        largest = probabilities[probabilities >= floor]
        if largest.sum() >= top_p:
            break
    largest = largest.sort(descending=True).values
    above = largest.cumsum(-1) - largest
    return largest[(above < top_p).sum().clamp(min=1) - 1]
