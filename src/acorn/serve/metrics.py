"""The figures of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper limits of the histograms' buckets."""


class Metrics:
    """Counters of one server, in a registry of their own: a process may have several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.prompt_tokens = Counter("acorn_prompt_tokens", "Tokens of prompts.", registry=self.registry)
        self.cached_tokens = Counter(
            "acorn_cached_prompt_tokens", "Tokens of prompts that the prefix cache had.", registry=self.registry
        )
        self.completion_tokens = Counter("acorn_completion_tokens", "Tokens generated.", registry=self.registry)
        self.first_token = Histogram(
            "acorn_time_to_first_token_seconds",
            "From when a text is asked for to its first token.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self.gap = Histogram(
            "acorn_time_between_tokens_seconds",
            "Between two tokens of a text.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self.requests = Counter(
            "acorn_requests", "Answered requests.", ["method", "route", "status"], registry=self.registry
        )
        self.refusals = Counter(
            "acorn_refusals",
            "Refused requests, with the code of the error.",
            ["status", "code"],
            registry=self.registry,
        )
        self.cancelled = Counter(
            "acorn_cancelled_requests", "Requests whose client closed the connection early.", registry=self.registry
        )

    def watch(self, waiting: Callable[[], int], active: Callable[[], int], slots: int) -> None:
        """Adds what is asked of the scheduler whenever the figures are read."""
        Gauge("acorn_queue_length", "Texts that wait for a slot.", registry=self.registry).set_function(waiting)
        Gauge("acorn_slots_used", "Texts that are read or continued.", registry=self.registry).set_function(active)
        Gauge("acorn_slots", "Texts that are continued together at most.", registry=self.registry).set(slots)

    def text(self) -> bytes:
        """The figures in Prometheus's text format."""
        return generate_latest(self.registry)
