"""The files of the playground's page, and the routes that serve them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def file_routes() -> list[Route]:
    """`/` and `/page/NAME` for each file."""
    files = page_files()
    found = [Route("/", _file(files["index.html"], "index.html"), methods=["GET"])]
    return found + [Route(f"/page/{name}", _file(body, name), methods=["GET"]) for name, body in files.items()]


def page_files() -> dict[str, bytes]:
    """Name -> content of every file of the page. Only these are served."""
    folder = resources.files("acorn.serve") / "page"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if Path(entry.name).suffix in MEDIA_TYPES}


def _file(body: bytes, name: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"cache-control": "no-cache", "etag": tag}  # the browser asks again, and gets 304

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=MEDIA_TYPES[Path(name).suffix])

    return answer
