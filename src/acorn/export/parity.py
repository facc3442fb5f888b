"""Checks that an exported model is the trained model: tokens, logits and greedy text, and a report of the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acorn.errors import DamageError, install_command
from acorn.export.probe import Probe
from acorn.export.runtimes import Answer, Runtime
from acorn.model.label_head import HeadSpec

LOGIT_TOLERANCE = {"f32": 0.01, "f16": 0.05, "bf16": 0.25, "q8_0": 0.5}
"""Largest allowed difference of a logit, in standard deviations of the logits at its position.

About ten times the measured differences (docs/export.md), and far below those of a wrong network, which are about 1.
The tolerance of f32 allows for llama.cpp's lookup table of GPT-2's activation, which has f16 values.
"""

OUTPUT_TOLERANCE = {"f32": 0.001, "f16": 0.05, "bf16": 0.25}
"""Largest allowed difference of a label head's output, as a share of the root mean square of all outputs.

A share of a standard deviation would mean little: a regressor has one output, which may be nearly the same everywhere.
"""

PROBABILITY_TOLERANCE = 1e-4
"""Largest allowed difference of a label's probability in f32."""

NEAR_TIE_GAP = 0.02
"""Two tokens with a smaller difference of logits (one at most 2 % more likely) may be swapped."""


@dataclass(frozen=True)
class Parity:
    """What was compared, and the results; the fields of parity.json.

    Attributes:
        runtime_version: None: the runtime is not installed, and checks that need it were skipped; see `runtime_note`.
        weight_difference: largest difference between the weights and the written file: the rounding error of dtype.
        tokens_by: the program whose tokens were compared with acorn's.
        lines, lines_equal: held-out lines, and those with equal tokens; `lines_from`: source -> number of lines.
        strings, strings_equal: the same for strings that are hard for tokenizers.
        logit_difference: largest difference; `logit_difference_in_deviations`, which has the tolerance: in standard
            deviations of the logits at its position. Of a label head: of its outputs, in their root mean square.
        logit_positions: number of positions compared.
        probability_difference: of a label head that gives probabilities: the largest difference of one.
        likeliest_agreement: share of these positions with the same most likely token.
        kl_divergence: KL divergence of the runtime's predictions from acorn's, mean over these positions, in nats.
        greedy_tokens: tokens that acorn chose greedily; `greedy_equal`: those that the runtime chose too, after the
            same tokens.
        greedy_near_ties: unequal ones where the two highest logits differ by less than NEAR_TIE_GAP.
        greedy_required: whether all must be equal except near ties; true for f32 only.
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
    probability_difference: float | None = None
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
    """Compares the answers of acorn and of the runtime.

    Args:
        answer: the runtime's answer; None: it is not installed.
        read_back: tokens of each text by the tokenizer in the written file.

    Raises:
        DamageError: a check fails.
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
        "runtime_note": None if answer else f"not installed; install it with: {install_command(runtime.extra)}",
        "weight_difference": weight_difference,
        "tokens_by": by,
        "lines": lines,
        "lines_equal": lines,
        "lines_from": probe.origins,
        "strings": len(probe.tokens) - lines,
        "strings_equal": len(probe.tokens) - lines,
    }
    if answer and probe.head is not None:
        facts |= _output_facts(probe, probe.head, answer, dtype, by)
    elif answer:
        facts |= _logit_facts(probe, answer, LOGIT_TOLERANCE[dtype], by) | _greedy_facts(probe, answer, dtype, by)
    return Parity(**facts)


def _check_tokens(probe: Probe, found: Sequence[Sequence[int]], by: str) -> None:
    texts = zip(probe.question.texts, probe.tokens, found, strict=True)
    different = [text for text, ours, theirs in texts if list(theirs) != ours]
    if different:
        raise DamageError(
            f"{len(different):,} of {len(probe.tokens):,} texts have different tokens in {by} than in acorn; "
            f"the first is {different[0][:200]!r}.",
            where="the check of tokens",
            fix=_TRY_ANOTHER,
        )


def _logit_facts(probe: Probe, answer: Answer, tolerance: float, by: str) -> dict[str, Any]:
    ours, theirs = torch.cat(probe.logits).double(), torch.cat(answer.logits).double()
    difference = (ours - theirs).abs()
    shares = difference.amax(-1) / ours.std(-1)
    if not bool((shares <= tolerance).all()):  # in this form NaN fails the check
        raise DamageError(
            f"The logits of {by} differ by up to {float(shares.max()):.3g} standard deviations; at most {tolerance} "
            "is allowed.",
            where="the check of logits",
            fix=_TRY_ANOTHER,
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


def _output_facts(probe: Probe, head: HeadSpec, answer: Answer, dtype: str, by: str) -> dict[str, Any]:
    """The comparison of a label head's outputs, and of their probabilities."""
    ours, theirs = torch.cat(probe.logits).double(), torch.cat(answer.logits).double()
    difference = float((ours - theirs).abs().max())
    share, tolerance = difference / max(float(ours.square().mean().sqrt()), 1e-30), OUTPUT_TOLERANCE[dtype]
    facts: dict[str, Any] = {
        "logit_positions": len(ours),
        "logit_difference": difference,
        "logit_difference_in_deviations": share,
        "logit_tolerance_in_deviations": tolerance,
    }
    apart = None
    if head.has_classes:
        ours_log, theirs_log = ours.log_softmax(-1), theirs.log_softmax(-1)
        apart = float((ours_log.exp() - theirs_log.exp()).abs().max())
        facts["likeliest_agreement"] = float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
        facts["kl_divergence"] = float((ours_log.exp() * (ours_log - theirs_log)).sum(-1).mean().clamp(min=0))
    elif head.kind == "labels":
        apart = float((ours.sigmoid() - theirs.sigmoid()).abs().max())
    too_far = dtype == "f32" and apart is not None and not apart <= PROBABILITY_TOLERANCE
    if too_far or not share <= tolerance:  # in this form NaN fails the check
        raise DamageError(
            f"The outputs of the label head differ in {by} by up to {share:.3g} of their root mean square "
            f"({tolerance} is allowed)" + ("." if apart is None else f", and probabilities by up to {apart:.3g}."),
            where="the check of labels",
            fix=_TRY_ANOTHER,
        )
    return {**facts, "probability_difference": apart}


def _greedy_facts(probe: Probe, answer: Answer, dtype: str, by: str) -> dict[str, Any]:
    ours = [id_ for _, ids in probe.question.continuations for id_ in ids]
    theirs = [id_ for ids in answer.likeliest for id_ in ids]
    gaps = [gap for each in probe.gaps for gap in each]
    apart = [gap for one, other, gap in zip(ours, theirs, gaps, strict=True) if one != other]
    near_ties = sum(gap < NEAR_TIE_GAP for gap in apart)
    if dtype == "f32" and near_ties < len(apart):
        raise DamageError(
            f"{len(apart) - near_ties} of {len(ours)} greedy tokens differ in {by}; acorn's highest logit is up to "
            f"{max(apart):.3g} above the second there, and only less than {NEAR_TIE_GAP} counts as a near tie.",
            where="the check of greedy tokens",
            fix=_TRY_ANOTHER,
        )
    return {
        "greedy_tokens": len(ours),
        "greedy_equal": len(ours) - len(apart),
        "greedy_near_ties": near_ties,
        "greedy_required": dtype == "f32",
    }


_TRY_ANOTHER = (
    "use another --format or --dtype, or another version of the runtime, and report the problem; the export was removed"
)
