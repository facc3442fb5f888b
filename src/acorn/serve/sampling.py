"""What a request says of sampling, as the jobs that the engine takes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from acorn.counting import counted
from acorn.generate.job import Job
from acorn.generate.settings import SamplingSettings
from acorn.serve.limits import LIMITS
from acorn.serve.request_errors import bad
from acorn.serve.schemas import Generating


@dataclass(frozen=True)
class Plan:
    """The jobs of a request: `n` for each prompt, in order.

    Attributes:
        seed: that of the request, or one that was drawn for it.
    """

    jobs: tuple[Job, ...]
    seed: int
    prompts: tuple[tuple[int, ...], ...]

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))


def planned(
    request: Generating,
    prompts: Sequence[Sequence[int]],
    max_tokens: int | None,
    default: int | None,
    *,
    context: int,
    vocab_size: int,
    alternatives: int | None,
    score_prompt: bool = False,
    param: str = "prompt",
) -> Plan:
    """The jobs of a request.

    The last new token is not read, so that a prompt and its new tokens may be one token longer than the context.

    Args:
        prompts: their token ids.
        max_tokens: as the request has it; 0: generate nothing.
        default: instead of None; None: the rest of the context.
        param: the field that has the prompt, for errors.

    Raises:
        RequestError: 400, if a prompt with its new tokens does not fit, or an id is not in the vocabulary.
    """
    if len(prompts) * request.n > LIMITS.choices:
        raise bad(
            f"{counted(len(prompts), 'prompt')} with n={request.n} are {len(prompts) * request.n:,} texts; one request "
            f"has at most {LIMITS.choices}.",
            "n",
            "limit_exceeded",
        )
    bias = _bias(request, vocab_size)
    seed = secrets.randbits(32) if request.seed is None else request.seed
    jobs: list[Job] = []
    for prompt in prompts:
        _check_ids(prompt, vocab_size, param)
        rest = context - len(prompt) + 1
        wanted = min(rest, default or rest) if max_tokens is None else max_tokens
        if rest < 1 or wanted > rest:
            _refuse_length(len(prompt), max_tokens, context, param)
        settings = SamplingSettings(
            max_new_tokens=max(wanted, 1),
            temperature=request.temperature,
            top_k=min(request.top_k, vocab_size),
            top_p=request.top_p,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            seed=seed,
            stop=request.stops,
            ignore_eos=request.ignore_eos,
        )
        for _ in range(request.n):
            jobs.append(
                Job(
                    tuple(prompt),
                    settings,
                    index=len(jobs),
                    logit_bias=bias,
                    frequency_penalty=request.frequency_penalty,
                    presence_penalty=request.presence_penalty,
                    alternatives=alternatives,
                    score_prompt=score_prompt,
                    prompt_only=wanted == 0,
                )
            )
    return Plan(tuple(jobs), seed, tuple(map(tuple, prompts)))


def _bias(request: Generating, vocab_size: int) -> dict[int, float]:
    bias = {int(token): value for token, value in request.logit_bias.items()}
    if unknown := [token for token in bias if token >= vocab_size]:
        raise bad(
            f"logit_bias has the token {unknown[0]:,}; the vocabulary has the ids 0 to {vocab_size - 1:,}.",
            "logit_bias",
            "invalid_value",
        )
    return bias


def _check_ids(prompt: Sequence[int], vocab_size: int, param: str) -> None:
    if unknown := [token for token in prompt if token >= vocab_size]:
        raise bad(
            f"{param} has the token {unknown[0]:,}; the vocabulary has the ids 0 to {vocab_size - 1:,}.",
            param,
            "invalid_value",
        )


def _refuse_length(length: int, max_tokens: int | None, context: int, param: str) -> None:
    if length > context:
        message = f"{param} has {counted(length, 'token')}, more than the model's context of {context:,}. Shorten it."
        raise bad(message, param, "context_length_exceeded")
    message = (
        f"{param} has {counted(length, 'token')}, and max_tokens is {max_tokens:,}: together more than the model's "
        f"context of {context:,} and one. Lower max_tokens to {context - length + 1:,}, or shorten {param}."
    )
    raise bad(message, "max_tokens", "context_length_exceeded")
