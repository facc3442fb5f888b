"""The decoding loop: each text is what it would be alone, whatever joins, leaves or is cached beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from acorn.generate.decoding import DecodingLoop, Text, token_scores
from acorn.generate.job import Job, TokenScore
from acorn.generate.prefix_cache import PrefixCache
from acorn.generate.settings import SamplingSettings
from acorn.generate.stepper import Stepper
from acorn.kernels.build import Unavailable
from acorn.kernels.sample import native_sampler
from acorn.model.gpt import GPT
from acorn.tokenizer.tokenizer import Tokenizer

Build = Callable[..., GPT]
C_CODE = pytest.mark.skipif(isinstance(native_sampler(), Unavailable), reason="no C compiler")
CHUNK = 8


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acorn.generate.stepper.LONGEST_CHUNK", CHUNK)
    monkeypatch.setattr("acorn.generate.stepper.SHORTEST_CHUNK", CHUNK)
    monkeypatch.setattr("acorn.generate.stepper.STORED_CHUNK", CHUNK)
    monkeypatch.setattr("acorn.generate.stepper.LONGEST_PART", CHUNK)


@dataclass
class Seen:
    """Everything that was reported of a text."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    scores: list[TokenScore] = field(default_factory=list)
    prompt_scores: tuple[TokenScore, ...] = ()
    cached_tokens: int = 0
    reason: str | None = None
    error: object = None

    @property
    def answer(self) -> tuple[object, ...]:
        return self.tokens, self.text, self.scores, self.prompt_scores, self.reason


def loop_of(
    model: GPT, size: int, prefixes: PrefixCache | None = None, *, decoder: str = "auto", **more: object
) -> DecodingLoop:
    return DecodingLoop(Stepper(model.eval(), size, decoder=decoder), frozenset({0}), [1], prefixes=prefixes, **more)


@torch.inference_mode()
def run(loop: DecodingLoop, tokenizer: Tokenizer, jobs: list[Job], seed: int | None = None) -> list[Seen]:
    """Takes the jobs in order, at once or at random turns."""
    order = random.Random(seed)
    seen = [Seen() for _ in jobs]
    waiting, number_of = list(range(len(jobs))), {}
    while waiting or loop.n_texts:
        while waiting and loop.has_room and (seed is None or not loop.n_texts or order.random() < 0.4):
            number = waiting.pop(0)
            text = Text(jobs[number], tokenizer)
            number_of[text] = number
            loop.add(text)
        for text, update in loop.turn():
            one = seen[number_of[text]]
            one.tokens += [] if update.token is None else [update.token]
            one.scores += [update.score] if update.score else []
            one.text += update.text
            one.prompt_scores += update.prompt_scores
            one.cached_tokens += update.cached_tokens
            one.reason, one.error = update.finish_reason, update.error
    return seen


def random_job(order: random.Random, vocab_size: int, beginning: tuple[int, ...], number: int) -> Job:
    prompt = (*beginning, *(order.randrange(2, vocab_size) for _ in range(order.randint(1, 12))))
    settings = SamplingSettings(
        max_new_tokens=order.randint(1, 12),
        temperature=order.choice([0.0, 0.7, 1.3]),
        top_k=order.choice([0, 5, 40]),
        top_p=order.choice([1.0, 0.9]),
        min_p=order.choice([0.0, 0.05]),
        repetition_penalty=order.choice([1.0, 1.3]),
        seed=order.randrange(5),
        stop=order.choice([(), ("e",)]),
        ignore_eos=True,
    )
    return Job(
        prompt,
        settings,
        index=number,
        logit_bias=order.choice([{}, {3: 4.0, 7: -100.0}]),
        frequency_penalty=order.choice([0.0, 0.5]),
        presence_penalty=order.choice([0.0, -0.5]),
        alternatives=order.choice([None, 0, 3, 20]),
        score_prompt=order.random() < 0.3,
    )


@C_CODE
@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_a_text_is_the_same_alone_and_among_others(random_model: Build, bpe: Tokenizer, architecture: str) -> None:
    """To the last bit of every reported probability: at random turns, in any batch, with its beginning cached or not,
    and where chunks of prompts are read one a turn or all at once."""
    model = random_model(architecture, bpe.vocab_size, block_size=64)
    order = random.Random(1)
    beginnings = [(), tuple(order.randrange(2, bpe.vocab_size) for _ in range(21))]
    jobs = [random_job(order, bpe.vocab_size, order.choice(beginnings), number) for number in range(24)]
    alone = [run(loop_of(model, 1), bpe, [job])[0] for job in jobs]
    for size, seed, interleaved, prefixes in (
        (5, 2, True, True),
        (12, 3, True, False),
        (3, 4, False, True),
        (1, None, True, True),
    ):
        cache = PrefixCache(CHUNK) if prefixes else None
        found = run(loop_of(model, size, cache, interleaved=interleaved), bpe, jobs, seed)
        assert [one.answer for one in found] == [one.answer for one in alone], (size, interleaved, prefixes)
        assert any(one.cached_tokens for one in found) == prefixes
    assert {one.reason for one in alone} == {"length", "stop"}


def test_scores_are_those_of_the_whole_text_computed_at_once(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("modern", bpe.vocab_size, block_size=64)
    prompt = tuple(range(5, 32))
    settings = SamplingSettings(max_new_tokens=6, temperature=1.5, seed=3, ignore_eos=True)
    (seen,) = run(loop_of(model, 1), bpe, [Job(prompt, settings, alternatives=4, score_prompt=True)])
    ids = [*prompt, *seen.tokens]
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0].log_softmax(-1)
    reported = [*seen.prompt_scores, *seen.scores]
    assert [score.id for score in reported] == ids[1:]
    for row, score in zip(expected[:-1], reported, strict=True):
        assert score.logprob == pytest.approx(float(row[score.id]), abs=1e-4)
        best = row.topk(4)
        assert [logprob for _, logprob in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert row[[id_ for id_, _ in score.top]].tolist() == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_prompt_alone_can_be_scored(random_model: Build, bpe: Tokenizer) -> None:
    """Also one of the whole context."""
    model = random_model("gpt2", bpe.vocab_size, block_size=32)
    jobs = [Job(tuple(range(2, 34)), SamplingSettings(seed=0), score_prompt=True, prompt_only=True)] * 3
    for seen in run(loop_of(model, 2, interleaved=True), bpe, jobs):
        assert (seen.tokens, seen.text, seen.reason) == ([], "", "length")
        assert [score.id for score in seen.prompt_scores] == list(range(3, 34))


@torch.inference_mode()
@pytest.mark.parametrize(("frequency", "presence"), [(0.0, 0.0), (1.5, 0.0), (0.0, 2.0), (0.7, -0.3)])
def test_bias_and_penalties_are_subtracted_from_the_logits(
    random_model: Build, bpe: Tokenizer, frequency: float, presence: float
) -> None:
    """A greedy choice, made again from the logits of the whole text and the definition of the penalties."""
    model = random_model("modern", bpe.vocab_size, block_size=64)
    prompt, bias = (5, 6, 7), {9: 0.5, 10: -100.0}
    settings = SamplingSettings(max_new_tokens=20, greedy=True, ignore_eos=True)
    (seen,) = run(
        loop_of(model, 1),
        bpe,
        [Job(prompt, settings, logit_bias=bias, frequency_penalty=frequency, presence_penalty=presence)],
    )
    for place, token in enumerate(seen.tokens):
        logits = model(torch.tensor([[*prompt, *seen.tokens[:place]]]))[0, -1]
        for id_, value in bias.items():
            logits[id_] += value
        for earlier in set(seen.tokens[:place]):
            logits[earlier] -= frequency * seen.tokens[:place].count(earlier) + presence
        logits[1] = -math.inf  # banned
        assert logits[token] == pytest.approx(float(logits.max()), abs=1e-4)


@pytest.mark.parametrize("decoder", ["torch", pytest.param("native", marks=C_CODE)])
def test_a_prompt_is_read_the_same_with_and_without_a_cached_beginning(
    random_model: Build, bpe: Tokenizer, decoder: str
) -> None:
    """PyTorch reads a rest of at most a quarter of a chunk with the chunk before it; that chunk is not taken from the
    cache, where other prompts left it. C code takes all but the last token."""
    model = random_model("modern", bpe.vocab_size, block_size=64)
    ids = [2 + number * 7 % 300 for number in range(40)]
    cache = PrefixCache(CHUNK)
    first = Job(tuple(ids), SamplingSettings(max_new_tokens=1, greedy=True))
    run(loop_of(model, 1, cache, decoder=decoder), bpe, [first])
    settings = SamplingSettings(max_new_tokens=2, greedy=True)
    rest = CHUNK // 4 if decoder == "torch" else 0
    for length in range(1, 34):
        job = Job(tuple(ids[:length]), settings, alternatives=3)
        (alone,), (cached,) = (run(loop_of(model, 1, one, decoder=decoder), bpe, [job]) for one in (None, cache))
        assert cached.answer == alone.answer, length
        assert cached.cached_tokens == max(0, length - rest - 1) // CHUNK * CHUNK


@C_CODE
def test_an_answer_that_becomes_part_of_a_prompt_is_not_read_again(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("modern", bpe.vocab_size, block_size=64)
    cache = PrefixCache(CHUNK)
    settings = SamplingSettings(max_new_tokens=20, seed=1, ignore_eos=True)
    (first,) = run(loop_of(model, 1, cache), bpe, [Job((5, 6, 7), settings)])
    later = Job((5, 6, 7, *first.tokens, 8, 9), settings, alternatives=2)
    (alone,), (cached,) = (run(loop_of(model, 1, one), bpe, [later]) for one in (None, cache))
    assert cached.cached_tokens == 16, "of the 22 tokens that were computed, those in whole chunks of 8"
    assert cached.answer == alone.answer


@torch.inference_mode()
def test_what_is_wrong_with_one_text_ends_only_that_one(random_model: Build, bpe: Tokenizer) -> None:
    model = random_model("modern", bpe.vocab_size, block_size=64)
    with torch.no_grad():
        model.head.weight[4] = 3e38 / model.config.n_embd  # large logits, still finite
    sound = Job((5, 6), SamplingSettings(max_new_tokens=4, seed=0, ignore_eos=True))
    settings = SamplingSettings(max_new_tokens=4, seed=0, repetition_penalty=1e-37, ignore_eos=True)
    alone = run(loop_of(model, 1), bpe, [sound])[0]
    beside, wrong = run(loop_of(model, 2), bpe, [sound, Job((4, 4, 6), settings)])
    assert beside.answer == alone.answer
    assert wrong.error is not None
    assert "repetition_penalty" in str(wrong.error)


def test_fewer_alternatives_are_the_first_of_more() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    logits[1] = 0.0  # all equally likely
    every = token_scores(logits, [1, 2, 3], 20)
    for count in (0, 1, 7):
        for one, whole in zip(token_scores(logits, [1, 2, 3], count), every, strict=True):
            assert one.top == whole.top[:count]
            assert one.logprob == whole.logprob
    assert token_scores(logits[:0], [], 3) == []
