"""Filters against transformers' own, draws against the probabilities they are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process

from acorn.generate.sampling import allowed_scores, candidates, fault_of, generator_for, next_token, sampled
from acorn.generate.settings import SamplingSettings
from acorn.kernels.sample import NOT_FINITE, NOT_FINITE_AFTER_PENALTY, NativeSampler, RowSettings, native_sampler

PLAIN = {"temperature": 1.0, "top_k": 0}
"""Settings that leave the model's own probabilities."""

NONE = torch.empty(0, dtype=torch.long)

FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 1},
    {"top_k": 7},
    {"top_p": 1e-6},
    {"top_p": 0.3},
    {"top_p": 0.95},
    {"min_p": 0.05},
    {"min_p": 0.99},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"temperature": 2.0, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.9, "min_p": 0.1},
    {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
]


def row_of(settings: Mapping[str, Any], draw: float = 0.0, seen: Sequence[int] = ()) -> RowSettings:
    defaults = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "temperature": 1.0, "greedy": False}
    return RowSettings(seen=seen, draw=draw, **defaults | settings)


@pytest.fixture(params=["torch", "native"], name="native")
def _native(request: pytest.FixtureRequest) -> NativeSampler | None:
    """What `next_token` samples with: PyTorch, or C."""
    if request.param == "torch":
        return None
    sampler = native_sampler()
    assert isinstance(sampler, NativeSampler)
    return sampler


def transformers_probabilities(logits: Tensor, seen: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """transformers' processors, in the order of its `generate`."""
    chain = logits_process.LogitsProcessorList()
    for name, processor in (
        ("repetition_penalty", logits_process.RepetitionPenaltyLogitsProcessor),
        ("temperature", logits_process.TemperatureLogitsWarper),
        ("top_k", logits_process.TopKLogitsWarper),
        ("top_p", logits_process.TopPLogitsWarper),
        ("min_p", logits_process.MinPLogitsWarper),
    ):
        if name in settings:
            chain.append(processor(settings[name]))
    return chain(seen, logits.clone()).softmax(-1)


@pytest.mark.parametrize("settings", FILTERS, ids=str)
@pytest.mark.parametrize("vocabulary", [50, 3000])
def test_filters_equal_those_of_transformers(settings: dict[str, Any], vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    # From peaked to nearly flat: the nucleus holds a few tokens in one row and thousands in another.
    logits = torch.randn(4, vocabulary, generator=generator) * torch.tensor([[8.0], [3.0], [1.0], [0.1]])
    seen = torch.randint(vocabulary, (4, 9), generator=generator)
    rows = [row_of(settings, seen=ids) for ids in seen.tolist()]
    probabilities = candidates(allowed_scores(logits, rows, NONE), rows).softmax(-1)
    wanted = transformers_probabilities(logits, seen, settings)
    assert torch.equal(probabilities > 0, wanted > 0)
    torch.testing.assert_close(probabilities, wanted, rtol=1e-4, atol=1e-7)


def test_samples_follow_the_probabilities(native: NativeSampler | None) -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0]).log().clamp(min=-1e30)
    n = 8000
    generators = [generator_for(0, index) for index in range(n)]
    tokens = next_token(logits.expand(n, -1), [[]] * n, SamplingSettings(**PLAIN), generators, native=native)
    shares = torch.bincount(tokens, minlength=5) / n
    # 5 standard deviations of a share of 1/2 over n draws
    torch.testing.assert_close(shares, logits.exp(), rtol=0, atol=5 * 0.5 / math.sqrt(n))
    assert shares[4] == 0


def test_a_sequence_samples_the_same_token_in_any_batch(native: NativeSampler | None) -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    settings = SamplingSettings(temperature=2.0, top_k=30, top_p=0.9, min_p=0.01, repetition_penalty=1.1)
    seen = [[1], [2, 3], [4]]
    together = next_token(logits, seen, settings, [generator_for(5, index) for index in range(3)], native=native)
    alone = [
        int(next_token(logits[row : row + 1], seen[row : row + 1], settings, [generator_for(5, row)], native=native)[0])
        for row in range(3)
    ]
    assert together.tolist() == alone


def test_streams_of_random_numbers_differ_by_seed_and_by_prompt() -> None:
    firsts = {
        float(torch.rand(1, generator=generator_for(s, i), dtype=torch.float64)) for s in range(9) for i in range(9)
    }
    assert len(firsts) == 81


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(greedy=True),
        SamplingSettings(temperature=0),
        SamplingSettings(temperature=1e-30),
        SamplingSettings(top_k=1),
        SamplingSettings(temperature=0, top_k=3, top_p=0.5),
    ],
    ids=str,
)
def test_greedy_settings_choose_the_most_likely_token(settings: SamplingSettings, native: NativeSampler | None) -> None:
    """Fault 55: temperature 0 means greedy."""
    logits = torch.randn(6, 30, generator=torch.Generator().manual_seed(3))
    tokens = next_token(logits, [[]] * 6, settings, [generator_for(0, index) for index in range(6)], native=native)
    assert tokens.tolist() == logits.argmax(-1).tolist()


def test_top_k_above_the_vocabulary_size_means_all() -> None:
    """Fault 55: top_k above the vocabulary."""
    assert candidates(torch.randn(1, 5), [row_of({"top_k": 1000})]).isfinite().all()


@pytest.mark.parametrize("settings", [SamplingSettings(greedy=True), SamplingSettings(temperature=5.0)], ids=str)
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_banned_tokens_are_never_chosen(
    settings: SamplingSettings, penalty: float, native: NativeSampler | None
) -> None:
    """Fault 57: not even if they are by far the most likely."""
    logits = torch.zeros(200, 10)
    logits[:, [2, 9]] = 50.0
    settings = SamplingSettings(greedy=settings.greedy, temperature=settings.temperature, repetition_penalty=penalty)
    generators = [generator_for(1, index) for index in range(200)]
    tokens = next_token(logits, [[2, 3]] * 200, settings, generators, torch.tensor([2, 9]), native)
    assert not set(tokens.tolist()) & {2, 9}
    assert logits[0, 2] == 50  # the caller's logits are left as they were


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_that_are_not_finite_are_an_error(value: float, greedy: bool, native: NativeSampler | None) -> None:
    logits = torch.zeros(2, 4)
    logits[1, 2] = value
    generators = [generator_for(0, 0), generator_for(0, 1)]
    settings = SamplingSettings(greedy=greedy)
    sound, fault = next_token(logits, [[], []], settings, generators, native=native).tolist()
    assert 0 <= sound < 4, "the other sequence is not affected"
    assert fault == NOT_FINITE
    assert "finite" in fault_of(fault, settings).what


@pytest.mark.parametrize("penalty", [1e-37, 1e37])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_penalty_that_overflows_fp32_is_an_error(penalty: float, greedy: bool, native: NativeSampler | None) -> None:
    """Otherwise one token would be sampled forever. Without earlier tokens the same penalty has no effect."""
    logits = torch.tensor([[50.0, 60.0, 70.0]]) * (1 if penalty < 1 else -1)  # divided by it, or multiplied
    settings = SamplingSettings(repetition_penalty=penalty, greedy=greedy)
    seen = [0, 1, 2]
    (fault,) = next_token(logits, [seen], settings, [generator_for(0, 0)], native=native).tolist()
    assert fault == NOT_FINITE_AFTER_PENALTY
    assert fault_of(fault, settings).exit_code == 4
    assert "repetition_penalty" in fault_of(fault, settings).where
    assert next_token(logits, [[]], settings, [generator_for(0, 0)], native=native).item() >= 0


@pytest.mark.parametrize("penalty", [1e-30, 1e-3, 1e3, 1e30])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_banned_token_stays_banned_under_every_penalty(
    penalty: float, greedy: bool, native: NativeSampler | None
) -> None:
    """Fault 57: minus infinity times the penalty stays minus infinity and does not become NaN."""
    settings = SamplingSettings(repetition_penalty=penalty, greedy=greedy)
    logits = torch.tensor([[2.0, 1.0, 9.0]]).expand(50, 3)
    generators = [generator_for(0, index) for index in range(50)]
    assert 2 not in next_token(logits, [[0, 1, 2]] * 50, settings, generators, torch.tensor([2]), native).tolist()


@pytest.mark.parametrize(("draw", "token"), [(0.0, 1), (1.0, 2)])
def test_extreme_random_numbers_sample_allowed_tokens(
    monkeypatch: pytest.MonkeyPatch, draw: float, token: int, native: NativeSampler | None
) -> None:
    monkeypatch.setattr(torch, "rand", lambda n, generator, dtype: torch.full((n,), draw, dtype=dtype))
    logits = torch.tensor([[-math.inf, 0.0, 1.0, -math.inf]])
    assert next_token(logits, [[]], SamplingSettings(), [generator_for(0, 0)], native=native).tolist() == [token]


@pytest.mark.parametrize("vocabulary", [7, 64, 1000])
@pytest.mark.parametrize("ties", [False, True])
def test_both_samplers_choose_the_same_tokens(vocabulary: int, ties: bool) -> None:
    """Each row with other settings, in one batch. Draws that fall between two tokens may be rounded to either."""
    native = native_sampler()
    assert isinstance(native, NativeSampler)
    order = torch.Generator().manual_seed(vocabulary)
    settings = [*FILTERS, {"greedy": True}, {"greedy": True, "repetition_penalty": 1.5}] * 20
    logits = torch.randn(len(settings), vocabulary, generator=order) * 3
    if ties:
        logits = logits.round()
    draws = torch.rand(len(settings), generator=order, dtype=torch.float64).tolist()
    rows = [
        row_of(one, draw, torch.randint(vocabulary, (6,), generator=order).tolist())
        for one, draw in zip(settings, draws, strict=True)
    ]
    banned = torch.tensor([1, 5])
    ours, theirs = native(logits, rows, banned), sampled(logits, rows, banned)
    assert not torch.isin(ours, banned).any()
    weights = candidates(allowed_scores(logits, rows, banned), rows).exp().double()
    for row in (ours != theirs).nonzero()[:, 0].tolist():
        reached = (weights[row] / weights[row].sum()).cumsum(0)
        assert not rows[row].greedy
        assert (reached - draws[row]).abs().min() < 1e-6
    assert (ours != theirs).sum() < len(rows) / 50


def test_each_row_has_its_own_settings(native: NativeSampler | None) -> None:
    """A row's token is the one that it gets alone, with its settings for all."""
    settings = [SamplingSettings(**one) for one in FILTERS] + [SamplingSettings(greedy=True)]
    logits = torch.randn(len(settings), 90, generator=torch.Generator().manual_seed(7))
    seen = [[row, 3, 3] for row in range(len(settings))]
    generators = [generator_for(9, row) for row in range(len(settings))]
    together = next_token(logits, seen, settings, generators, torch.tensor([4]), native).tolist()
    for row, one in enumerate(settings):
        alone = next_token(
            logits[row : row + 1], seen[row : row + 1], one, [generator_for(9, row)], torch.tensor([4]), native
        )
        assert alone.tolist() == together[row : row + 1]
