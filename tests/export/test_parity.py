"""The gates: what passes, what does not, and the figures of the report."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from acorn.errors import DamageError
from acorn.export.parity import Parity, compare
from acorn.export.probe import Probe
from acorn.export.runtimes import RUNTIMES, Answer, Question

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, -3.0]])
PROBE = Probe(
    Question(["a line", "a string"], [[0, 1]], [([0], [1, 2])]),
    n_lines=1,
    origins={"somewhere": 1},
    tokens=[[0, 1], [0, 2]],
    logits=[LOGITS],
    gaps=[[0.5, 0.01]],
)
ANSWER = Answer("1.2", [[0, 1], [0, 2]], [LOGITS], [[1, 2]])


def run(answer: Answer | None, dtype: str = "f32", read_back: object = None) -> Parity:
    return compare(
        PROBE,
        answer,
        read_back or PROBE.tokens,
        format="gguf",
        dtype=dtype,
        runtime=RUNTIMES["gguf"],
        weight_difference=0.0,
    )


def changed(**changes: object) -> Answer:
    return dataclasses.replace(ANSWER, **changes)


def test_equal_answers_pass() -> None:
    parity = run(ANSWER)
    assert parity.logit_difference == 0
    assert (parity.lines_equal, parity.strings_equal, parity.greedy_equal) == (1, 1, 2)
    assert parity.greedy_required


def test_metrics_follow_their_definitions() -> None:
    theirs = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, -2.9]])
    parity = run(changed(logits=[theirs]), "bf16")
    assert parity.logit_difference == pytest.approx(0.1, rel=1e-5)
    assert parity.logit_difference_in_deviations == pytest.approx(0.1 / 3, rel=1e-5)  # of 0, 3 and -3
    ours_total = 1 + math.exp(3) + math.exp(-3)
    theirs_total = 1 + math.exp(3) + math.exp(-2.9)
    divergence = math.log(theirs_total / ours_total) - 0.1 * math.exp(-3) / ours_total
    assert parity.kl_divergence == pytest.approx(divergence / 2, rel=1e-4)
    assert parity.likeliest_agreement == 1


@pytest.mark.parametrize(("off", "dtype", "passes"), [(0.02, "f32", True), (0.1, "f32", False), (0.1, "f16", True)])
def test_logits_have_a_tolerance_for_each_type(off: float, dtype: str, passes: bool) -> None:
    answer = changed(logits=[LOGITS + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, off]])])
    if passes:
        assert run(answer, dtype).logit_difference == pytest.approx(off, rel=1e-4)
    else:
        with pytest.raises(DamageError, match="standard deviations"):
            run(answer, dtype)


def test_nan_logits_fail() -> None:
    with pytest.raises(DamageError, match="differ by up to nan"):
        run(changed(logits=[LOGITS.clone().fill_(math.nan)]), "q8_0")


def test_one_different_token_fails() -> None:
    with pytest.raises(DamageError, match=r"1 of 2 texts have different tokens in llama.cpp 1.2.*'a string'"):
        run(changed(tokens=[[0, 1], [0, 3]]))
    with pytest.raises(DamageError, match=r"the written file, read back.*'a line'"):
        run(None, read_back=[[0], [0, 2]])


def test_greedy_tokens_may_differ_in_near_ties_and_in_low_precision() -> None:
    parity = run(changed(likeliest=[[1, 0]]))
    assert (parity.greedy_equal, parity.greedy_near_ties) == (1, 1)
    with pytest.raises(DamageError, match="1 of 2 greedy tokens"):
        run(changed(likeliest=[[0, 0]]))
    parity = run(changed(likeliest=[[0, 0]]), "q8_0")
    assert (parity.greedy_equal, parity.greedy_near_ties, parity.greedy_required) == (0, 1, False)


def test_without_a_runtime_only_the_file_is_checked() -> None:
    parity = run(None)
    assert parity.tokens_by == "the written file, read back"
    assert parity.runtime_note == "not installed; install it with: pip install -c constraints.txt '.[llama]'"
    assert parity.greedy_equal is parity.logit_difference is parity.runtime_version is None
