"""Errors of requests, in the form that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException

from acorn.errors import AcornError, InputError, UsageError
from acorn.serve.limits import LIMITS, RETRY_SECONDS
from acorn.serve.scheduler import NotReadyError, QueueFullError

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
"""Status -> `type` in the error. Others: `invalid_request_error` below 500, `server_error` from 500 on."""


@dataclass
class RequestError(Exception):
    """A request is refused.

    Attributes:
        message: a sentence or two, with what to do about it.
        param: the field of the body that is meant.
        code: a short name of the reason, for programs and metrics.
        headers: further headers of the response.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.message)

    @property
    def body(self) -> dict[str, Any]:
        """The error as a response has it."""
        return error_body(self.status, self.message, self.param, self.code)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The JSON object of an error. A long message is cut, since it may repeat a part of the request."""
    if len(message) > LIMITS.error_characters:
        message = message[: LIMITS.error_characters] + "..."
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def bad(message: str, param: str | None = None, code: str | None = None) -> RequestError:
    """A request that cannot be answered as it is."""
    return RequestError(400, message, param, code)


def retry_later(status: int, message: str, code: str) -> RequestError:
    """A request that may be sent again later."""
    return RequestError(status, message, None, code, {"Retry-After": str(RETRY_SECONDS)})


def request_error(error: BaseException, param: str | None = None) -> RequestError:
    """What a request is answered with because of `error`.

    Args:
        param: the field of the body that the error is about.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, QueueFullError):
        return retry_later(429, "The server has as many requests as it takes. Send it again later.", "queue_full")
    if isinstance(error, NotReadyError):
        return retry_later(503, "The server is loading the model, or stopping. Send it again later.", "not_ready")
    if isinstance(error, HTTPException):  # of Starlette's router: no such route, or another method
        return _no_route(error)
    if isinstance(error, UsageError | InputError):
        return bad(_sentences(error), param)
    if isinstance(error, AcornError):
        return RequestError(500, _sentences(error), param)
    return RequestError(500, "The server failed to answer; its log says why.", None, "internal_error")


def _no_route(error: HTTPException) -> RequestError:
    if error.status_code == 405:
        return RequestError(
            405, "This route does not take this method; the header Allow has those that it takes.", None,
            "method_not_allowed", dict(error.headers or {}),
        )  # fmt: skip
    return RequestError(404, "There is no such route. GET /openapi.json lists the routes.", None, "not_found")


def _sentences(error: AcornError) -> str:
    """What happened and how to fix it. The place is left out: it may be a path on the server."""
    what = error.what if error.what.endswith((".", "?", "!")) else f"{error.what}."
    return f"{what} Fix: {error.fix}." if error.fix else what
