"""The bodies of the requests that only the playground's page sends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from acorn.serve.limits import LIMITS
from acorn.serve.schemas import Body, Ids

Checkpoint = Annotated[str, Field(pattern=r"^([0-9]{1,11}|final|best|last)$")]

_INPUT = "a string or a list of token ids; empty: the beginning of a document"


class InspectRequest(Body):
    """The body of POST /v1/inspect."""

    input: str | Ids = Field("", description=_INPUT)
    kind: Literal["document", "prompt"] = Field(
        "document", description="document: a string is scored as a whole document, with bits per byte"
    )
    checkpoint: Checkpoint | None = Field(None, description="a checkpoint of the run; absent: the served model")
    top: int = Field(0, ge=0, le=LIMITS.alternatives, description="alternatives listed of each token")
    next_top: int = Field(0, ge=0, le=LIMITS.next_tokens, description="tokens listed of what is expected next")


class LensRequest(Body):
    """The body of POST /v1/lens."""

    input: str | Ids = Field("", description=_INPUT)
    checkpoint: Checkpoint | None = Field(None, description="a checkpoint of the run; absent: the served model")
    top: int = Field(5, ge=1, le=LIMITS.alternatives, description="tokens listed of each layer's prediction")


class FilmRequest(Body):
    """The body of POST /v1/film."""

    prompt: str = Field("", description="a string")
    max_tokens: int = Field(24, ge=0, le=LIMITS.film_tokens, description="new tokens of each frame")


class Side(Body):
    """One of the two models of a comparison."""

    run: str | None = Field(None, description="its name, as GET /v1/run has it; absent: the served run")
    checkpoint: Checkpoint = Field("final", description="one of its checkpoints")


class CompareRequest(Body):
    """The body of POST /v1/compare."""

    prompt: str = Field("", description="a string")
    left: Side = Field(description="an object with run and checkpoint")
    right: Side = Field(description="an object with run and checkpoint")
    max_tokens: int = Field(64, ge=1, le=LIMITS.compared_tokens, description="new tokens of each model")
    temperature: float = Field(1, ge=0, le=LIMITS.temperature, description="divides the logits; 0: greedy")
    top_p: float = Field(1, gt=0, le=1, description="only the most likely tokens whose probabilities sum to this")
    top_k: int = Field(0, ge=0, description="only this many most likely tokens; 0: all")
    min_p: float = Field(0, ge=0, lt=1, description="only tokens with this share of the highest probability")
    seed: int = Field(0, ge=-(2**63), le=2**63 - 1, description="equal seeds give equal text")
