"""Checks that the packages of the extra `serve` are installed."""

from __future__ import annotations

import importlib.util

from acorn.errors import MissingPackageError

PACKAGES = {"starlette": "starlette", "uvicorn": "uvicorn", "prometheus-client": "prometheus_client", "h11": "h11"}
"""Package -> the name that it is imported by."""


def check_packages() -> None:
    """Refuses to serve without them.

    Raises:
        MissingPackageError: the extra `serve` is not installed.
    """
    for package, name in PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(package, "serve", purpose="acorn serve")
