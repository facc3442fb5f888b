"""POST /v1/tokenize and /v1/detokenize: text to token ids and back."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from acorn.errors import AcornError
from acorn.serve.bodies import ignored_header, json_response, read
from acorn.serve.context import Context
from acorn.serve.limits import LIMITS
from acorn.serve.request_errors import bad, request_error
from acorn.serve.schemas import DetokenizeRequest, TokenizeRequest, ignored_fields
from acorn.serve.token_text import TokenTexts
from acorn.tokenizer.tokenizer import Tokenizer


async def tokenize(request: Request, context: Context) -> Response:
    """The ids of a text, as a prompt has them; and the text and the bytes of each."""
    wanted = await read(request, TokenizeRequest, context.limits)
    context.check_model(wanted.model)
    if (wanted.input is None) == (wanted.text is None):
        raise bad("Give the text as input or as text, one of them.", "input", "missing_parameter")
    text = wanted.text if wanted.input is None else wanted.input
    assert text is not None
    found = await asyncio.to_thread(_tokenized, text, context.tokenizer, context.token_texts)
    return json_response(found, headers=ignored_header(ignored_fields(wanted)))


def _tokenized(text: str, tokenizer: Tokenizer, texts: TokenTexts) -> dict[str, Any]:
    try:
        ids = tokenizer.encode_prompt(text)
    except AcornError as error:
        raise request_error(error, "input") from None
    if len(ids) > LIMITS.tokenized:
        raise bad(
            f"The text has {len(ids):,} tokens; the largest number is {LIMITS.tokenized:,}.", "input", "limit_exceeded"
        )
    return {
        "object": "tokens",
        "ids": ids,
        "count": len(ids),
        "pieces": [texts.text(token) for token in ids],
        "bytes": [list(texts.bytes(token)) for token in ids],
    }


async def detokenize(request: Request, context: Context) -> Response:
    """The text of ids, with the names of control tokens."""
    wanted = await read(request, DetokenizeRequest, context.limits)
    context.check_model(wanted.model)
    ids = wanted.tokens if wanted.ids is None else wanted.ids
    if ids is None or (wanted.ids is not None and wanted.tokens is not None):
        raise bad("Give the token ids as ids or as tokens, one of them.", "ids", "missing_parameter")
    tokenizer = context.tokenizer
    if unknown := [token for token in ids if token >= tokenizer.vocab_size]:
        raise bad(
            f"ids has the token {unknown[0]:,}; the vocabulary has the ids 0 to {tokenizer.vocab_size - 1:,}.",
            "ids",
            "invalid_value",
        )
    text = await asyncio.to_thread(tokenizer.decode, ids, skip_special_tokens=False)
    return json_response({"object": "text", "text": text}, headers=ignored_header(ignored_fields(wanted)))
