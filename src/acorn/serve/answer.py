"""The answer to a request for text: as a whole, or as the objects of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive

from acorn.checkpoint.load import LoadedModel
from acorn.errors import AcornError
from acorn.serve.access_log import note
from acorn.serve.bodies import ignored_header, json_response
from acorn.serve.context import Context
from acorn.serve.event_stream import EventStream
from acorn.serve.pieces import Piece, Usage, joined, pieces
from acorn.serve.running import running
from acorn.serve.sampling import Plan
from acorn.serve.scheduler import NotReadyError
from acorn.serve.schemas import Generating, ignored_fields


class Answer:
    """What completions and chat completions have in common.

    Args:
        echoes: what each text begins with; None: nothing.
    """

    prefix = ""
    """What the answer's id begins with."""
    kind = chunk_kind = ""
    """`object` of a whole answer, and of an object of a stream."""

    def __init__(
        self, context: Context, wanted: Generating, plan: Plan, loaded: LoadedModel, echoes: list[str | None]
    ) -> None:
        self.context, self.wanted, self.plan, self.echoes = context, wanted, plan, echoes
        self.tokenizer, self.tokens = loaded.tokenizer, context.token_texts
        self.usage = Usage(plan.prompt_tokens)
        self.head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "object": self.chunk_kind if wanted.stream else self.kind,
            "created": int(time.time()),
            "model": context.name,
            "seed": plan.seed,
        }

    def choice(self, piece: Piece) -> dict[str, Any]:
        """A whole text, as the response has it."""
        raise NotImplementedError

    def chunk(self, piece: Piece, *, is_first: bool) -> dict[str, Any]:
        """A part of a text, as an object of the stream has it."""
        raise NotImplementedError

    async def response(self, request: Request) -> ASGIApp:
        """The response.

        Raises:
            QueueFullError, NotReadyError, AcornError, ClientGoneError
        """
        note(request.scope, prompt_tokens=self.plan.prompt_tokens)
        headers = ignored_header(ignored_fields(self.wanted))
        if self.wanted.stream:
            return EventStream(lambda receive: self._stream(request, receive), headers)
        parts = [part async for part in self._parts(request, request.receive)]
        choices = [self.choice(piece) for piece in joined(parts, len(self.plan.jobs))]
        return json_response({**self.head, "choices": choices, "usage": self.usage.record}, headers=headers)

    async def _stream(self, request: Request, receive: Receive) -> AsyncGenerator[dict[str, Any], None]:
        with_usage = self.wanted.stream_options is not None and self.wanted.stream_options.include_usage
        more: dict[str, Any] = {"usage": None} if with_usage else {}
        begun: set[int] = set()
        async with aclosing(self._parts(request, receive)) as parts:
            async for part in parts:
                yield {**self.head, "choices": [self.chunk(part, is_first=part.index not in begun)], **more}
                begun.add(part.index)
        if with_usage:
            yield {**self.head, "choices": [], "usage": self.usage.record}

    async def _parts(self, request: Request, receive: Receive) -> AsyncGenerator[Piece, None]:
        metrics = self.context.metrics
        try:
            async with running(self.context, self.plan.jobs, receive) as mailbox:
                found = pieces(mailbox, self.plan.jobs, self.tokenizer, self.usage, self.wanted.n, self.echoes)
                async with aclosing(found):
                    async for part in found:
                        yield part
            metrics.prompt_tokens.inc(self.usage.prompt_tokens)
            metrics.cached_tokens.inc(self.usage.cached_tokens)
        except AcornError:
            if self.context.is_draining:  # what was left at the end of the time was ended
                raise NotReadyError from None
            raise
        finally:
            metrics.completion_tokens.inc(self.usage.completion_tokens)
            note(request.scope, completion_tokens=self.usage.completion_tokens)
