"""Filters against transformers' own, draws against the probabilities they are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process

from acorn.errors import DamageError
from acorn.generate.sampling import allowed_scores, candidates, generator_for, next_token
from acorn.generate.settings import SamplingSettings

PLAIN = {"temperature": 1.0, "top_k": 0}
"""Settings that leave the model's own probabilities."""

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
    own = SamplingSettings(**PLAIN | settings)
    probabilities = torch.zeros_like(logits)
    for row, scores in zip(probabilities, allowed_scores(logits, seen.tolist(), own, None), strict=True):
        ids, log_weights = candidates(scores, own)
        row[ids] = log_weights.softmax(-1)
    wanted = transformers_probabilities(logits, seen, settings)
    assert torch.equal(probabilities > 0, wanted > 0)
    torch.testing.assert_close(probabilities, wanted, rtol=1e-4, atol=1e-7)


def test_samples_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0]).log().clamp(min=-1e30)
    n = 8000
    generators = [generator_for(0, index) for index in range(n)]
    tokens = next_token(logits.expand(n, -1), [[]] * n, SamplingSettings(**PLAIN), generators)
    shares = torch.bincount(tokens, minlength=5) / n
    # 5 standard deviations of a share of 1/2 over n draws
    torch.testing.assert_close(shares, logits.exp(), rtol=0, atol=5 * 0.5 / math.sqrt(n))
    assert shares[4] == 0


def test_a_sequence_samples_the_same_token_in_any_batch() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    settings = SamplingSettings(temperature=2.0, top_k=30, top_p=0.9, min_p=0.01, repetition_penalty=1.1)
    seen = [[1], [2, 3], [4]]
    together = next_token(logits, seen, settings, [generator_for(5, index) for index in range(3)])
    alone = [
        int(next_token(logits[row : row + 1], seen[row : row + 1], settings, [generator_for(5, row)])[0])
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
def test_greedy_settings_choose_the_most_likely_token(settings: SamplingSettings) -> None:
    """Fault 55: temperature 0 means greedy."""
    logits = torch.randn(6, 30, generator=torch.Generator().manual_seed(3))
    tokens = next_token(logits, [[]] * 6, settings, [generator_for(0, index) for index in range(6)])
    assert tokens.tolist() == logits.argmax(-1).tolist()


def test_top_k_above_the_vocabulary_size_means_all() -> None:
    """Fault 55: top_k above the vocabulary."""
    scores = torch.randn(5)
    assert torch.equal(candidates(scores, SamplingSettings(top_k=1000))[0], torch.arange(len(scores)))


@pytest.mark.parametrize("settings", [SamplingSettings(greedy=True), SamplingSettings(temperature=5.0)], ids=str)
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_banned_tokens_are_never_chosen(settings: SamplingSettings, penalty: float) -> None:
    """Fault 57: not even if they are by far the most likely."""
    logits = torch.zeros(200, 10)
    logits[:, [2, 9]] = 50.0
    settings = SamplingSettings(greedy=settings.greedy, temperature=settings.temperature, repetition_penalty=penalty)
    generators = [generator_for(1, index) for index in range(200)]
    tokens = next_token(logits, [[2, 3]] * 200, settings, generators, torch.tensor([2, 9]))
    assert not set(tokens.tolist()) & {2, 9}
    assert logits[0, 2] == 50  # the caller's logits are left as they were


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_logits_that_are_not_finite_are_an_error(value: float, greedy: bool) -> None:
    logits = torch.zeros(2, 4)
    logits[1, 2] = value
    with pytest.raises(DamageError, match="finite"):
        next_token(logits, [[], []], SamplingSettings(greedy=greedy), [generator_for(0, 0), generator_for(0, 1)])


@pytest.mark.parametrize("penalty", [1e-37, 1e37])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_penalty_that_overflows_fp32_is_an_error(penalty: float, greedy: bool) -> None:
    """Otherwise one token would be sampled forever. Without earlier tokens the same penalty has no effect."""
    logits = torch.tensor([[50.0, 60.0, 70.0]]) * (1 if penalty < 1 else -1)  # divided by it, or multiplied
    settings = SamplingSettings(repetition_penalty=penalty, greedy=greedy)
    seen = [0, 1, 2]
    with pytest.raises(DamageError, match="finite") as caught:
        next_token(logits, [seen], settings, [generator_for(0, 0)])
    assert caught.value.exit_code == 4
    assert "repetition_penalty" in caught.value.where
    assert next_token(logits, [[]], settings, [generator_for(0, 0)]).numel() == 1


@pytest.mark.parametrize("penalty", [1e-30, 1e-3, 1e3, 1e30])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_banned_token_stays_banned_under_every_penalty(penalty: float, greedy: bool) -> None:
    """Fault 57: minus infinity times the penalty stays minus infinity and does not become NaN."""
    settings = SamplingSettings(repetition_penalty=penalty, greedy=greedy)
    logits = torch.tensor([[2.0, 1.0, 9.0]]).expand(50, 3)
    generators = [generator_for(0, index) for index in range(50)]
    assert 2 not in next_token(logits, [[0, 1, 2]] * 50, settings, generators, torch.tensor([2])).tolist()


@pytest.mark.parametrize(("draw", "token"), [(0.0, 1), (1.0, 2)])
def test_extreme_random_numbers_sample_allowed_tokens(monkeypatch: pytest.MonkeyPatch, draw: float, token: int) -> None:
    monkeypatch.setattr(torch, "rand", lambda n, generator, dtype: torch.full((n,), draw, dtype=dtype))
    logits = torch.tensor([[-math.inf, 0.0, 1.0, -math.inf]])
    assert next_token(logits, [[]], SamplingSettings(), [generator_for(0, 0)]).tolist() == [token]
