"""GET /v1/models: the one model that the server has."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from acorn.serve.bodies import json_response
from acorn.serve.context import Context
from acorn.serve.scheduler import NotReadyError


async def models(request: Request, context: Context) -> Response:
    return json_response({"object": "list", "data": [_record(context)]})


async def model(request: Request, context: Context) -> Response:
    context.check_model(request.path_params["name"])
    return json_response(_record(context))


def _record(context: Context) -> dict[str, Any]:
    loaded = context.loaded()
    record: dict[str, Any] = {
        "id": context.name,
        "object": "model",
        "created": context.created,
        "owned_by": "acorn",
        "context_length": loaded.config.block_size,
        "vocab_size": loaded.tokenizer.vocab_size,
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "task": loaded.task or "generate",
        "has_chat_template": bool(loaded.chat_template),
    }
    return record | ({"step": loaded.step} if loaded.step is not None else {})


async def health(request: Request, context: Context) -> Response:
    """The process answers. The engine is not asked."""
    return json_response({"status": "ok"})


async def ready(request: Request, context: Context) -> Response:
    """Whether requests are taken."""
    if not context.is_ready:
        raise NotReadyError
    return json_response({"status": "ready"})
