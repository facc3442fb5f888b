"""Reads the body of a request, and writes JSON responses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from acorn.serve.json_body import json_object
from acorn.serve.limits import Limits
from acorn.serve.mailbox import ClientGoneError
from acorn.serve.request_errors import RequestError
from acorn.serve.schemas import Body, parsed

Kind = TypeVar("Kind", bound=Body)

IGNORED = "X-Acorn-Ignored"
"""Header of a response with the fields of the request that the server does not know."""

LARGEST_HEADER = 1000
"""Characters of that header; further names are left out."""


async def read(request: Request, kind: type[Kind], limits: Limits) -> Kind:
    """The body of a request.

    Raises:
        RequestError: 415 or 400.
        ClientGoneError: the client closed the connection.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError(415, "The body should have the media type application/json.", None, "unsupported_media_type")
    try:
        body = await request.body()
    except ClientDisconnect:
        raise ClientGoneError from None
    return parsed(kind, json_object(body, limits))


def json_bytes(value: Any) -> bytes:
    """JSON in ASCII, so that no client can split a character."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, headers=dict(headers or {}), media_type="application/json")


def error_response(error: RequestError) -> Response:
    return json_response(error.body, error.status, error.headers)


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The header that names the ignored fields; empty: there are none."""
    if not names:
        return {}
    safe = (re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:64] for name in names[:100])
    return {IGNORED: ", ".join(safe)[:LARGEST_HEADER]}
