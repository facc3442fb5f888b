"""POST /v1/chat/completions: answers conversations."""

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
from acorn.serve.pieces import Piece, Placed
from acorn.serve.request_errors import bad, request_error
from acorn.serve.sampling import Plan, planned
from acorn.serve.schemas import ChatRequest
from acorn.serve.token_text import TokenTexts
from acorn.text.examples import Message, Role
from acorn.tokenizer.template_format import AnyChatFormat

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Role of a request -> role of a chat template. `developer` is OpenAI's newer name of `system`."""


async def chat_completions(request: Request, context: Context) -> ASGIApp:
    """Answers a request."""
    wanted = await read(request, ChatRequest, context.limits)
    context.check_model(wanted.model)
    loaded = context.language_model()
    format = context.chat()
    _check(wanted)
    context.scheduler.check_room()  # before any work on a request that would be refused
    ids = await asyncio.to_thread(_encoded, wanted, format)
    plan = planned(
        wanted,
        [ids],
        wanted.max_completion_tokens or wanted.max_tokens,
        None,
        context=loaded.config.block_size,
        vocab_size=loaded.tokenizer.vocab_size,
        alternatives=(wanted.top_logprobs or 0) if wanted.logprobs else None,
        param="messages",
    )
    return await _ChatCompletion(context, wanted, plan, loaded).response(request)


def _check(wanted: ChatRequest) -> None:
    """Refuses fields that contradict each other."""
    if wanted.stream_options and not wanted.stream:
        raise bad("stream_options is only for streams. Leave it out, or set stream.", "stream_options")
    if wanted.top_logprobs is not None and not wanted.logprobs:
        raise bad("top_logprobs needs logprobs. Set logprobs too.", "top_logprobs")
    lengths = {wanted.max_tokens, wanted.max_completion_tokens} - {None}
    if len(lengths) > 1:
        raise bad("max_tokens and max_completion_tokens differ. Give one of them.", "max_tokens")


def _encoded(wanted: ChatRequest, format: AnyChatFormat) -> list[int]:
    messages = [Message(ROLES[message.role], message.text, False) for message in wanted.messages]
    try:
        return format.encode(messages, to_answer=True).ids
    except AcornError as error:
        raise request_error(error, "messages") from None


class _ChatCompletion(Answer):
    """Answers of the assistant."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, context: Context, wanted: ChatRequest, plan: Plan, loaded: LoadedModel) -> None:
        super().__init__(context, wanted, plan, loaded, [None] * len(plan.jobs))
        self.with_logprobs = wanted.logprobs

    def choice(self, piece: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        return self._with_logprobs(piece, {"message": message})

    def chunk(self, piece: Piece, *, is_first: bool) -> dict[str, Any]:
        role = {"role": "assistant"} if is_first else {}
        return self._with_logprobs(piece, {"delta": {**role, "content": piece.text}})

    def _with_logprobs(self, piece: Piece, content: dict[str, Any]) -> dict[str, Any]:
        found = {"content": chat_logprobs(piece.tokens, self.tokens), "refusal": None} if self.with_logprobs else None
        return {"index": piece.index, **content, "logprobs": found, "finish_reason": piece.finish_reason}


def chat_logprobs(placed: Sequence[Placed], tokens: TokenTexts) -> list[dict[str, Any]]:
    """Log probabilities in the form of chat completions: an object for each token."""
    return [
        {
            **_record(one.token, one.score.logprob, tokens),
            "top_logprobs": [_record(token, logprob, tokens) for token, logprob in one.score.top],
        }
        for one in placed
        if one.score is not None
    ]


def _record(token: int, logprob: float, tokens: TokenTexts) -> dict[str, Any]:
    return {"token": tokens.text(token), "logprob": logprob, "bytes": list(tokens.bytes(token))}
