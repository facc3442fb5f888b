"""Who may ask: the key, and checks of Host and Origin against pages of other sites."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acorn.serve.request_errors import RequestError

OPEN_ROUTES = frozenset({"/health", "/ready"})
"""Paths that need no key."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

CHALLENGE = 'Basic realm="acorn", charset="UTF-8"'
"""Browsers ask for a user name, which does not matter, and a password, which is the key. Chromium asks for nothing if
the header has a second scheme, such as Bearer."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every response that does not set them itself."""


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any_address(host: str) -> bool:
    """Whether it means all addresses of this machine: 0.0.0.0 or ::."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Access:
    """The rules.

    Attributes:
        host: that the server listens on.
        allowed: further names that the server is called by.
        key: None: everyone may ask.
    """

    host: str = "127.0.0.1"
    allowed: frozenset[str] = frozenset()
    key: str | None = None

    @staticmethod
    def of(host: str, allowed: Iterable[str], key: str | None) -> Access:
        return Access(host.lower(), frozenset(name.lower() for name in allowed), key)

    def check(self, path: str, headers: Headers) -> None:
        """Refuses who may not ask.

        A browser sends pages of other sites to this server too. A site can point its own name at this machine, so the
        name in Host has to be one of the server's; and what another site's page sends has its Origin.

        Raises:
            RequestError: 403 or 401.
        """
        host, port = _host_and_port(headers.get("host", ""))
        if not self._is_own(host):
            raise RequestError(
                403,
                "The name in the header Host is none of this server's. Start it with --allow-host to add the name.",
                code="foreign_host",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_own_origin(origin, host, port):
            raise RequestError(403, "Pages of other sites may not use this server.", code="foreign_origin")
        if self.key is not None and path not in OPEN_ROUTES and not self._has_key(headers.get("authorization", "")):
            raise RequestError(
                401,
                "The key is missing or wrong. Send the header Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": CHALLENGE},
            )

    def _is_own(self, host: str) -> bool:
        if host in LOOPBACK_NAMES or host in self.allowed or host == self.host:
            return True
        return _is_any_address(self.host) and _is_address(host)  # no site can have an address as its name

    def _is_own_origin(self, origin: str, host: str, port: int | None) -> bool:
        try:
            parts = urlsplit(origin)
            name, origin_port = (parts.hostname or "").lower(), parts.port
        except ValueError:
            return False
        standard = {"http": 80, "https": 443}.get(parts.scheme)
        if standard is None:
            return False
        if name in self.allowed:
            return True
        return name == host and (origin_port or standard) == (port or standard)

    def _has_key(self, authorization: str) -> bool:
        """Takes equally long for every wrong key: nobody can guess the key by measuring times."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, UnicodeDecodeError, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        assert self.key is not None
        digests = (hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, self.key))
        return hmac.compare_digest(*digests)


def _host_and_port(header: str) -> tuple[str, int | None]:
    """`example.org:8000` as (`example.org`, 8000); an empty host if it cannot be read."""
    try:
        parts = urlsplit(f"//{header}")
        if parts.path or parts.query or parts.fragment or "@" in header:
            return "", None
        return (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None


class AccessCheck:
    """ASGI middleware that applies the rules."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.access.check(scope["path"], Headers(scope=scope))
        await self.app(scope, receive, send)


class SecurityHeaders:
    """ASGI middleware that adds the security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                headers += [header for header in _ENCODED if header[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_headers)


_ENCODED = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
