"""The ASGI application: the routes, and what stands around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from acorn.serve.access import Access, AccessCheck, SecurityHeaders
from acorn.serve.access_log import AccessLog
from acorn.serve.bodies import json_response
from acorn.serve.chat_completions import chat_completions
from acorn.serve.classify import classify
from acorn.serve.completions import completions
from acorn.serve.context import Context
from acorn.serve.models import health, model, models, ready
from acorn.serve.openapi import description
from acorn.serve.page_files import file_routes
from acorn.serve.playground import Playground
from acorn.serve.tokens import detokenize, tokenize

Handler = Callable[[Request, Context], Awaitable[Any]]


def routes(context: Context) -> list[Route]:
    """The routes of the interface."""

    def route(path: str, handler: Handler, method: str) -> Route:
        async def endpoint(request: Request) -> Any:
            return await handler(request, context)

        return Route(path, endpoint, methods=[method])

    return [
        route("/v1/completions", completions, "POST"),
        route("/v1/chat/completions", chat_completions, "POST"),
        route("/v1/tokenize", tokenize, "POST"),
        route("/v1/detokenize", detokenize, "POST"),
        route("/v1/classify", classify, "POST"),
        route("/v1/models", models, "GET"),
        route("/v1/models/{name:path}", model, "GET"),
        route("/health", health, "GET"),
        route("/ready", ready, "GET"),
        route("/metrics", _metrics, "GET"),
        route("/openapi.json", _openapi, "GET"),
    ]


def page_routes(context: Context) -> list[Route]:
    """The routes of the page at `/`, and those that only it needs."""
    page = Playground(context)
    return [
        Route("/v1/inspect", page.inspect, methods=["POST"]),
        Route("/v1/lens", page.lens, methods=["POST"]),
        Route("/v1/compare", page.compare, methods=["POST"]),
        Route("/v1/film", page.film, methods=["POST"]),
        Route("/v1/run", page.facts, methods=["GET"]),
        Route("/v1/run/events", page.events, methods=["GET"]),
        *file_routes(),
    ]


def application(context: Context, access: Access) -> ASGIApp:
    """The application."""
    every = [*routes(context), *page_routes(context)]
    router = Router(every, redirect_slashes=False)
    checked = AccessCheck(_RaisingRouter(router), access)
    return SecurityHeaders(AccessLog(checked, context, {route.endpoint: route.path for route in every}))


class _RaisingRouter:
    """A router that raises an exception where there is no route, instead of answering in plain text."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # as Starlette's own application does
        await self._router(scope, receive, send)


async def _metrics(request: Request, context: Context) -> Response:
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4")


async def _openapi(request: Request, context: Context) -> Response:
    return json_response(description(context))
