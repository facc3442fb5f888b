"""Samples the next tokens of many sequences from their logits.

The filters have the same meaning and order as in transformers: repetition penalty, temperature, top-k, top-p,
min-p. Sources: Keskar et al. 2019 (repetition penalty), Fan et al. 2018 (top-k), Holtzman et al. 2019 (top-p),
Nguyen et al. 2024 (min-p). On a CPU, kernels/csrc/sample.c does the same faster.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from acorn.errors import DamageError
from acorn.generate.settings import SamplingSettings
from acorn.kernels.sample import NOT_FINITE, NOT_FINITE_AFTER_PENALTY, NativeSampler, RowSettings

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
    settings: SamplingSettings | Sequence[SamplingSettings],
    generators: Sequence[torch.Generator],
    banned: Tensor | None = None,
    native: NativeSampler | None = None,
) -> Tensor:
    """Chooses the next token of each sequence, independently of the other sequences.

    Args:
        logits: (B, V).
        seen: ids of each sequence so far, including the prompt.
        settings: of each sequence, or of all of them.
        generators: one for each sequence; one random number is taken from each unless the choice is greedy.
        banned: ids that are never chosen, on the CPU.
        native: samples in C.

    Returns:
        ids (B,), on the CPU; NOT_FINITE or NOT_FINITE_AFTER_PENALTY where there is nothing to choose from: see
        `fault_of`.
    """
    listed = [settings] * len(logits) if isinstance(settings, SamplingSettings) else settings
    draws = [
        0.0 if one.is_greedy else float(torch.rand(1, generator=generator, dtype=torch.float64))
        for one, generator in zip(listed, generators, strict=True)
    ]
    rows = [
        RowSettings(
            ids if one.repetition_penalty != 1 else (),
            draw,
            one.temperature,
            one.top_k,
            one.top_p,
            one.min_p,
            one.repetition_penalty,
            one.is_greedy,
        )
        for ids, draw, one in zip(seen, draws, listed, strict=True)
    ]
    # On the CPU, where sums are taken in one order, whatever computed the logits.
    scores = logits.float().cpu()
    banned = torch.empty(0, dtype=torch.long) if banned is None else banned
    return native(scores, rows, banned) if native else sampled(scores, rows, banned)


def fault_of(result: int, settings: SamplingSettings) -> DamageError:
    """The error for a result of `next_token` that is no token."""
    if result == NOT_FINITE_AFTER_PENALTY:
        return DamageError(
            f"With repetition_penalty {settings.repetition_penalty}, the logits are not finite.",
            where="repetition_penalty",
            fix="use a value closer to 1 (no penalty)",
        )
    return DamageError(
        "The model's logits are not finite.",
        where="the model's weights, or its precision",
        fix="use another checkpoint; with fp16, try --precision fp32",
    )


def sampled(logits: Tensor, rows: Sequence[RowSettings], banned: Tensor) -> Tensor:
    """What `NativeSampler` returns, computed by PyTorch."""
    scores = allowed_scores(logits, rows, banned)
    weights = candidates(scores, rows).exp().double()  # (B, V)
    reached = weights.cumsum(-1)
    total = reached[:, -1:].contiguous()
    place = torch.searchsorted(reached, _column([row.draw for row in rows]) * total, right=True)
    # Rounding may put the random number beyond the last token with a nonzero weight.
    drawn = torch.minimum(place, torch.searchsorted(reached, total))[:, 0]
    tokens = torch.where(torch.tensor([row.greedy for row in rows]), scores.argmax(-1), drawn)
    # The maximum of a row is NaN if any of its elements is NaN.
    tokens = tokens.where(scores.amax(-1).isfinite(), NOT_FINITE_AFTER_PENALTY)
    return tokens.where(logits.amax(-1).isfinite(), NOT_FINITE)


def allowed_scores(logits: Tensor, rows: Sequence[RowSettings], banned: Tensor) -> Tensor:
    """Logits (B, V) after the repetition penalty, with -inf for banned ids."""
    scores = logits.index_fill(-1, banned, -math.inf)
    if any(row.repetition_penalty != 1 for row in rows):
        is_seen = torch.zeros_like(scores, dtype=torch.bool)
        places = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(row.seen) for row in rows]))
        is_seen[places, list(itertools.chain.from_iterable(row.seen for row in rows))] = True
        penalties = _column([row.repetition_penalty for row in rows]).float()
        scores = torch.where(is_seen, torch.where(scores < 0, scores * penalties, scores / penalties), scores)
    return scores


def candidates(scores: Tensor, rows: Sequence[RowSettings]) -> Tensor:
    """Log-weights (B, V) after temperature, top-k, top-p and min-p: 0 for the most likely token, -inf for removed ones.

    Greedy rows, whose temperature may be 0, are of no meaning.
    """
    temperatures = _column([1.0 if row.greedy else row.temperature for row in rows]).float()
    scores = (scores - scores.amax(-1, keepdim=True)) / temperatures
    top_k = [row.top_k if 0 < row.top_k < scores.size(1) else 0 for row in rows]
    largest = scores.topk(max(top_k)).values if any(top_k) else scores  # (B, the largest k), descending
    if any(top_k):
        least = largest.gather(1, torch.tensor([[max(k - 1, 0)] for k in top_k]))
        limited = torch.tensor([[k > 0] for k in top_k])
        scores = scores.masked_fill(limited & (scores < least), -math.inf)
    if any(row.top_p < 1 for row in rows):
        scores = scores.masked_fill(scores.softmax(-1) < _least_of_nuclei(scores, rows), -math.inf)
    if any(row.min_p > 0 for row in rows):
        floors = _column([math.log(row.min_p) if row.min_p > 0 else -math.inf for row in rows]).float()
        scores = scores.masked_fill(scores < floors, -math.inf)
    return scores


def _least_of_nuclei(scores: Tensor, rows: Sequence[RowSettings]) -> Tensor:
    """The smallest probability (B, 1) within each row's top-p: tokens are kept until the more likely ones sum to it."""
    probabilities, wanted = scores.softmax(-1), _column([row.top_p for row in rows])
    for floor in NUCLEUS_FLOORS:
        counts = (probabilities >= floor).sum(-1)
        largest = probabilities.topk(int(counts.max().clamp(min=1))).values.double()  # (B, n), descending
        if (largest.masked_fill(largest < floor, 0).sum(-1, keepdim=True) >= wanted).all():
            break
    above = largest.cumsum(-1) - largest
    places = ((above < wanted).sum(-1, keepdim=True) - 1).clamp(min=0)
    return torch.where(wanted < 1, largest.gather(1, places), 0).float()


def _column(values: Sequence[float]) -> Tensor:
    """Values of the rows, (B, 1)."""
    return torch.tensor(values, dtype=torch.float64)[:, None]
