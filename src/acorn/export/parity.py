"""Whether an exported model is the one that was trained: gates that every export has to pass, and their report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acorn.errors import DamageError
from acorn.export.probe import Probe
from acorn.export.runtimes import Answer, Runtime

LOGIT_TOLERANCE = {"f32": 0.01, "f16": 0.05, "bf16": 0.25, "q8_0": 0.5}
"""How far a logit may be off, in standard deviations of its position's logits.

About ten times what was measured (docs/export.md), and far below what any mistake in a network makes, which is of the
order of 1. f32 leaves room for the table of f16 numbers in which llama.cpp looks up GPT-2's activation.
"""

NEAR_TIE = 0.02
"""Two tokens whose logits are closer, so that one is at most 2 % likelier, may change places."""


@dataclass(frozen=True)
class Parity:
    """What was compared, and how it came out; its fields are those of parity.json.

    Attributes:
        runtime_version: None: it is not installed, so nothing that needs it was checked; `runtime_note` says so.
        weight_difference: the largest between the weights and what the written file holds: that of rounding to dtype.
        tokens_by: what encoded the texts that acorn's tokenizer was compared on.
        lines, lines_equal: held-out lines, and those with the same tokens; `lines_from`: place -> number of them.
        strings, strings_equal: the same for strings that were made to differ.
        logit_difference: the largest; `logit_difference_in_deviations`, of its position's logits, has a tolerance.
        logit_positions: how many were compared.
        likeliest_agreement: share of these positions with the same likeliest token.
        kl_divergence: of the runtime's predictions from acorn's, mean over these positions, in nats.
        greedy_tokens: tokens chosen greedily by acorn, given those before; `greedy_equal`: by the runtime as well.
        greedy_near_ties: of those that are not equal, the ones with two logits less than NEAR_TIE apart.
        greedy_required: all must be equal, but for near ties; so in f32 only.
    """

    format: str
    dtype: str
    runtime: str
    runtime_version: str | None
    runtime_note: str | None
    weight_difference: float
    tokens_by: str
    lines: int
    lines_equal: int
    lines_from: dict[str, int]
    strings: int
    strings_equal: int
    logit_positions: int | None = None
    logit_difference: float | None = None
    logit_difference_in_deviations: float | None = None
    logit_tolerance_in_deviations: float | None = None
    likeliest_agreement: float | None = None
    kl_divergence: float | None = None
    greedy_tokens: int | None = None
    greedy_equal: int | None = None
    greedy_near_ties: int | None = None
    greedy_required: bool | None = None


def compare(
    probe: Probe,
    answer: Answer | None,
    read_back: Sequence[Sequence[int]],
    *,
    format: str,
    dtype: str,
    runtime: Runtime,
    weight_difference: float,
) -> Parity:
    """Compares what acorn and the runtime answered.

    Args:
        answer: None: the runtime is not installed.
        read_back: the tokens of each text, from the tokenizer in the written file.

    Raises:
        DamageError: a gate is not passed.
    """
    by = f"{runtime.name} {answer.version}" if answer else "the written file, read back"
    for encoder, found in [("the written file, read back", read_back), (by, answer.tokens if answer else read_back)]:
        _check_tokens(probe, found, encoder)
    lines = probe.n_lines
    facts: dict[str, Any] = {
        "format": format,
        "dtype": dtype,
        "runtime": runtime.name,
        "runtime_version": answer.version if answer else None,
        "runtime_note": None if answer else f"not installed; pip install 'acorn-lm[{runtime.extra}]' brings it",
        "weight_difference": weight_difference,
        "tokens_by": by,
        "lines": lines,
        "lines_equal": lines,
        "lines_from": probe.origins,
        "strings": len(probe.tokens) - lines,
        "strings_equal": len(probe.tokens) - lines,
    }
    if answer:
        facts |= _logit_facts(probe, answer, LOGIT_TOLERANCE[dtype], by) | _greedy_facts(probe, answer, dtype, by)
    return Parity(**facts)


def _check_tokens(probe: Probe, found: Sequence[Sequence[int]], by: str) -> None:
    texts = zip(probe.question.texts, probe.tokens, found, strict=True)
    different = [text for text, ours, theirs in texts if list(theirs) != ours]
    if different:
        raise DamageError(
            f"{len(different):,} of {len(probe.tokens):,} texts have other tokens in {by} than in acorn; "
            f"the first is {different[0][:200]!r}.",
            where="the tokenizer's gate",
            fix=_KEPT,
        )


def _logit_facts(probe: Probe, answer: Answer, tolerance: float, by: str) -> dict[str, Any]:
    ours, theirs = torch.cat(probe.logits).double(), torch.cat(answer.logits).double()
    difference = (ours - theirs).abs()
    shares = difference.amax(-1) / ours.std(-1)
    if not bool((shares <= tolerance).all()):  # so written that NaN does not pass
        raise DamageError(
            f"The logits of {by} are off by up to {float(shares.max()):.3g} standard deviations; at most {tolerance} "
            "is allowed.",
            where="the logits' gate",
            fix=_KEPT,
        )
    ours_log, theirs_log = ours.log_softmax(-1), theirs.log_softmax(-1)
    return {
        "logit_positions": len(ours),
        "logit_difference": float(difference.max()),
        "logit_difference_in_deviations": float(shares.max()),
        "logit_tolerance_in_deviations": tolerance,
        "likeliest_agreement": float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
        "kl_divergence": float((ours_log.exp() * (ours_log - theirs_log)).sum(-1).mean().clamp(min=0)),
    }


def _greedy_facts(probe: Probe, answer: Answer, dtype: str, by: str) -> dict[str, Any]:
    ours = [id_ for _, ids in probe.question.continuations for id_ in ids]
    theirs = [id_ for ids in answer.likeliest for id_ in ids]
    gaps = [gap for each in probe.gaps for gap in each]
    apart = [gap for one, other, gap in zip(ours, theirs, gaps, strict=True) if one != other]
    near_ties = sum(gap < NEAR_TIE for gap in apart)
    if dtype == "f32" and near_ties < len(apart):
        raise DamageError(
            f"{len(apart) - near_ties} of {len(ours)} greedy tokens are others in {by}; acorn's logit for its own is "
            f"up to {max(apart):.3g} above the second, and only {NEAR_TIE} counts as a near tie.",
            where="the gate of greedy tokens",
            fix=_KEPT,
        )
    return {
        "greedy_tokens": len(ours),
        "greedy_equal": len(ours) - len(apart),
        "greedy_near_ties": near_ties,
        "greedy_required": dtype == "f32",
    }


_KEPT = "nothing was kept; use another --format or --dtype, or another version of the runtime, and report it"
