"""Every limit of the server in one table. The documentation and the OpenAPI description are made from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple


def _limit(value: float, unit: str, what: str, beyond: str) -> Any:
    """A field of `Limits`: its value, the unit, what is limited, and what happens beyond it."""
    return field(default=value, metadata={"unit": unit, "what": what, "beyond": beyond})


@dataclass(frozen=True)
class Limits:
    """The limits of a server. Tests build their own with smaller values."""

    connections: int = _limit(1000, "", "connections at the same time", "429 with Retry-After, then closed")
    head_bytes: int = _limit(16 * 1024, "bytes", "request line and headers", "431")
    body_bytes: int = _limit(1024 * 1024, "bytes", "body of a request", "413")
    request_seconds: float = _limit(10, "seconds", "time from a request's first byte to its last", "408, then closed")
    keep_alive_seconds: float = _limit(15, "seconds", "time in which a connection may be idle", "closed")
    write_seconds: float = _limit(
        30, "seconds", "time in which a client has to read what was sent", "connection is aborted"
    )
    linger_seconds: float = _limit(2, "seconds", "time in which a refused client may go on sending", "closed")
    drain_seconds: float = _limit(30, "seconds", "time for running requests after SIGTERM", "they are cut off")
    queue: int = _limit(256, "", "texts that wait for a slot", "429 with Retry-After")
    nesting: int = _limit(32, "levels", "nesting of lists and objects in a body", "400")
    error_characters: int = _limit(1000, "characters", "message of an error", "it is cut")
    choices: int = _limit(128, "", "texts of one request: prompts times n", "400")
    prompts: int = _limit(128, "", "prompts of one request", "400")
    n: int = _limit(128, "", "n: texts for each prompt", "400")
    messages: int = _limit(1024, "", "messages of a conversation", "400")
    inputs: int = _limit(256, "", "texts of one request to classify", "400")
    tokenized: int = _limit(65_536, "tokens", "text of /v1/tokenize", "400")
    stop_strings: int = _limit(16, "", "strings in stop", "400")
    stop_characters: int = _limit(256, "characters", "length of a stop string", "400")
    alternatives: int = _limit(20, "tokens", "logprobs and top_logprobs", "400")
    logit_bias_entries: int = _limit(1024, "tokens", "tokens in logit_bias", "400")
    logit_bias_value: float = _limit(100, "", "absolute value in logit_bias", "400")
    temperature: float = _limit(2, "", "temperature", "400")
    penalty: float = _limit(2, "", "absolute value of frequency_penalty and presence_penalty", "400")
    inspected_tokens: int = _limit(16_384, "tokens", "text to inspect, compare or film", "400")
    inspected_scores: int = _limit(100_000, "", "scores of a text to inspect: tokens times (1 + alternatives)", "400")
    next_tokens: int = _limit(500, "tokens", "tokens listed of what is expected next", "400")
    lens_tokens: int = _limit(128, "tokens", "text to look inside", "400")
    film_tokens: int = _limit(64, "tokens", "new tokens of each frame of a film", "400")
    compared_tokens: int = _limit(256, "tokens", "new tokens of each compared model", "400")
    watchers: int = _limit(32, "", "pages that follow a run at the same time", "429 with Retry-After")


class LimitRow(NamedTuple):
    """A row of the table, in words."""

    name: str
    value: str
    what: str
    beyond: str


def table(limits: Limits | None = None) -> list[LimitRow]:
    """The limits as rows, in order."""
    limits = limits or LIMITS
    rows = []
    for one in dataclasses.fields(limits):
        value = f"{getattr(limits, one.name):,} {one.metadata['unit']}".strip()
        rows.append(LimitRow(one.name, value, one.metadata["what"], one.metadata["beyond"]))
    return rows


RETRY_SECONDS = 1
"""The value of Retry-After."""

LIMITS = Limits()
"""The limits that the server has."""
