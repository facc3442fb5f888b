"""POST /v1/completions: continues prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError
from acorn.serve.answer import Answer
from acorn.serve.bodies import read
from acorn.serve.context import Context
from acorn.serve.limits import LIMITS
from acorn.serve.pieces import Piece, Placed
from acorn.serve.request_errors import bad, request_error
from acorn.serve.sampling import Plan, planned
from acorn.serve.schemas import CompletionRequest
from acorn.serve.token_text import TokenTexts

DEFAULT_TOKENS = 16
"""New tokens where a request says nothing, as with OpenAI."""


async def completions(request: Request, context: Context) -> ASGIApp:
    """Answers a request."""
    wanted = await read(request, CompletionRequest, context.limits)
    context.check_model(wanted.model)
    loaded = context.language_model()
    if wanted.stream_options and not wanted.stream:
        raise bad("stream_options is only for streams. Leave it out, or set stream.", "stream_options")
    context.scheduler.check_room()  # before any work on a request that would be refused
    prompts, texts = await asyncio.to_thread(_prompts, wanted, loaded)
    plan = planned(
        wanted,
        prompts,
        wanted.max_tokens,
        DEFAULT_TOKENS,
        context=loaded.config.block_size,
        vocab_size=loaded.tokenizer.vocab_size,
        alternatives=wanted.logprobs,
        score_prompt=wanted.echo and wanted.logprobs is not None,
    )
    return await _Completion(context, wanted, plan, loaded, texts).response(request)


def _prompts(wanted: CompletionRequest, loaded: LoadedModel) -> tuple[list[list[int]], list[str | None]]:
    """The ids of each prompt, and its text where it was given as text.

    Raises:
        RequestError: a prompt cannot be encoded, or there are too many.
    """
    prompt = wanted.prompt
    several: Sequence[Any] = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    if len(several) > LIMITS.prompts:
        raise bad(f"prompt has {len(several):,} prompts; the largest number is {LIMITS.prompts}.", "prompt",
                  "limit_exceeded")  # fmt: skip
    tokenizer = loaded.tokenizer
    ids: list[list[int]] = []
    texts: list[str | None] = []
    for one in several:
        if isinstance(one, str):
            try:
                ids.append(tokenizer.encode_prompt(one) or [tokenizer.separator_id])
            except AcornError as error:
                raise request_error(error, "prompt") from None
            texts.append(one)
        else:
            ids.append(one)
            texts.append(None)
    return ids, texts


class _Completion(Answer):
    """Texts with their prompts' texts."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(
        self, context: Context, wanted: CompletionRequest, plan: Plan, loaded: LoadedModel, texts: Sequence[str | None]
    ) -> None:
        self.prompts = [
            loaded.tokenizer.decode(ids) if text is None else text
            for text, ids in zip(texts, plan.prompts, strict=True)
            for _ in range(wanted.n)
        ]  # of each text
        echoes = [prompt if wanted.echo else None for prompt in self.prompts]
        super().__init__(context, wanted, plan, loaded, echoes)
        self.alternatives, self.returns_ids = wanted.logprobs, wanted.return_token_ids

    def choice(self, piece: Piece) -> dict[str, Any]:
        logprobs = None
        if self.alternatives is not None:
            start = len(self.prompts[piece.index])
            logprobs = legacy_logprobs(piece.tokens, self.tokens, start, self.alternatives)
        return {
            "index": piece.index,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
            **({"token_ids": piece.ids} if self.returns_ids else {}),
        }

    def chunk(self, piece: Piece, *, is_first: bool) -> dict[str, Any]:
        return self.choice(piece)


def legacy_logprobs(placed: Sequence[Placed], tokens: TokenTexts, start: int, alternatives: int) -> dict[str, Any]:
    """Log probabilities in the form of completions: lists with an element for each token.

    Args:
        start: characters of the prompt: `text_offset` counts from its beginning.
    """
    return {
        "tokens": [tokens.name(one.token) for one in placed],
        "token_logprobs": [one.score.logprob if one.score else None for one in placed],
        "top_logprobs": [_top(one, tokens, alternatives) for one in placed],
        "text_offset": [one.offset + (0 if one.is_prompt else start) for one in placed],
    }


def _top(one: Placed, tokens: TokenTexts, alternatives: int) -> dict[str, float] | None:
    """Text -> log probability of the likely tokens and of the chosen one."""
    if one.score is None:
        return None
    found: dict[str, float] = {}
    for token, logprob in (*one.score.top[:alternatives], (one.token, one.score.logprob)):
        found.setdefault(tokens.name(token), logprob)
    return found
