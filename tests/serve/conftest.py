"""Servers that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI
from tiny_servers import Running, serving, tiny_language_model
from watched_runs import watched_model, watched_run

from acorn.checkpoint.load import LoadedModel
from acorn.serve.scheduler import Scheduler

__all__ = ["watched_model", "watched_run"]


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    return tiny_language_model()


@pytest.fixture(scope="module")
def real(tiny: LoadedModel) -> Iterator[Running]:
    """A server with the engine."""
    with serving(tiny, scheduler=Scheduler) as running:
        yield running


@pytest.fixture(scope="module")
def faked(tiny: LoadedModel) -> Iterator[Running]:
    """A server with the stand-in for the engine."""
    with serving(tiny) as running:
        yield running


@pytest.fixture
def client(real: Running) -> OpenAI:
    return real.client()
