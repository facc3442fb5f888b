"""The bodies of requests: their fields, types and limits. Types are strict: a boolean or a string is no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acorn.errors import shown
from acorn.serve.limits import LIMITS
from acorn.serve.request_errors import RequestError, bad
from acorn.value_faults import wanted

Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Stop = Annotated[str, Field(min_length=1, max_length=LIMITS.stop_characters)]
IdText = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")]
Ids = Annotated[list[Id], Field(min_length=1)]


class Body(BaseModel):
    """What all bodies have in common: `null` is absent, and unknown fields are kept, to be named as ignored."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class StreamOptions(Body):
    """How a stream is sent."""

    include_usage: bool = Field(False, description="send the numbers of tokens before the end of the stream")


class Generating(Body):
    """The fields of completions and of chat completions: how tokens are sampled, and how the answer is sent."""

    model: str | None = Field(None, description="the name of the model, as GET /v1/models has it; absent: the model")
    temperature: float = Field(1, ge=0, le=LIMITS.temperature, description="divides the logits; 0: greedy")
    top_p: float = Field(1, gt=0, le=1, description="only the most likely tokens whose probabilities sum to this")
    top_k: int = Field(0, ge=0, description="only this many most likely tokens; 0: all")
    min_p: float = Field(0, ge=0, lt=1, description="only tokens with this share of the highest probability")
    repetition_penalty: float = Field(1, ge=0.01, le=100, description="above 1: repeat less")
    frequency_penalty: float = Field(
        0,
        ge=-LIMITS.penalty,
        le=LIMITS.penalty,
        description="subtracted from the logit of a token for each time it was generated",
    )
    presence_penalty: float = Field(
        0,
        ge=-LIMITS.penalty,
        le=LIMITS.penalty,
        description="subtracted from the logit of each token that was generated",
    )
    logit_bias: dict[IdText, Annotated[float, Field(ge=-LIMITS.logit_bias_value, le=LIMITS.logit_bias_value)]] = Field(
        {}, max_length=LIMITS.logit_bias_entries, description="token id -> value added to its logit"
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="equal seeds give equal text")
    stop: Stop | list[Stop] = Field(
        [], max_length=LIMITS.stop_strings, description="a string, or a list of strings, before which the text ends"
    )
    n: int = Field(1, ge=1, le=LIMITS.n, description="texts for each prompt")
    stream: bool = Field(False, description="send the text while it grows, as server-sent events")
    stream_options: StreamOptions | None = Field(None, description="only with stream")
    ignore_eos: bool = Field(False, description="continue after the end of a document or answer")

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class CompletionRequest(Generating):
    """The body of POST /v1/completions."""

    prompt: str | Ids | Annotated[list[str], Field(min_length=1)] | Annotated[list[Ids], Field(min_length=1)] = Field(
        "",
        description="a string, a list of token ids, a list of strings, or a list of lists of token ids; "
        "empty: a new document",
    )
    max_tokens: int | None = Field(None, ge=0, description="largest number of new tokens; absent: 16")
    return_token_ids: bool = Field(False, description="give the ids of new tokens as token_ids of each choice")
    logprobs: int | None = Field(
        None, ge=0, le=LIMITS.alternatives, description="report log probabilities, and of this many likely tokens"
    )
    echo: bool = Field(False, description="begin the text with the prompt")


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] = Field(description="a string, or a list of parts of the type text")

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Generating):
    """The body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=LIMITS.messages)
    max_tokens: int | None = Field(None, ge=1, description="largest number of new tokens; absent: the whole context")
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool = Field(False, description="report log probabilities")
    top_logprobs: int | None = Field(
        None, ge=0, le=LIMITS.alternatives, description="of this many likely tokens too; only with logprobs"
    )


class TokenizeRequest(Body):
    """The body of POST /v1/tokenize: a text, as `input` or `text`."""

    model: str | None = None
    input: str | None = Field(None, description="the text")
    text: str | None = Field(None, description="the text")


class DetokenizeRequest(Body):
    """The body of POST /v1/detokenize: token ids, as `ids` or `tokens`."""

    model: str | None = None
    ids: list[Id] | None = None
    tokens: list[Id] | None = None


class ClassifyRequest(Body):
    """The body of POST /v1/classify."""

    model: str | None = None
    input: str | list[str] = Field(description="a text, or a list of texts")

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


MEANINGLESS: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "grammar": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "modalities": (["text"],),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "web_search_options": (),
}
"""Field that the server cannot do what it says -> the values that ask for nothing. Others are refused: an answer that
leaves them out would not be what was asked for."""

Request = TypeVar("Request", bound=Body)


def parsed(kind: type[Request], body: Mapping[str, Any]) -> Request:
    """The body of a request.

    Raises:
        RequestError: 400, for the first field that is wrong.
    """
    present = _without_nulls(body)
    if issubclass(kind, Generating):
        _refuse_meaningless(present)
    try:
        return kind.model_validate(present)
    except ValidationError as error:
        raise _refusal(kind, error) from None


def ignored_fields(request: Body) -> list[str]:
    """The names of the fields that the server does not know."""
    return sorted(name for name in request.model_extra or {} if name not in MEANINGLESS and name != "best_of")


def _without_nulls(value: Any) -> Any:
    """`value` without the keys of objects whose value is null. Keys of `logit_bias` are tokens, whose null is an
    error."""
    if isinstance(value, Mapping):
        return {
            key: inner if key == "logit_bias" else _without_nulls(inner)
            for key, inner in value.items()
            if inner is not None
        }
    return (
        [_without_nulls(inner) if isinstance(inner, Mapping) else inner for inner in value]
        if isinstance(value, list)
        else value
    )


def _refuse_meaningless(body: Mapping[str, Any]) -> None:
    for name, harmless in MEANINGLESS.items():
        if name in body and not any(body[name] == value for value in harmless):
            raise bad(f"The server does not support {name}. Leave it out.", name, "unsupported_parameter")
    if "best_of" in body and (type(body["best_of"]) is not int or body["best_of"] != body.get("n", 1)):
        raise bad("The server does not support best_of. Leave it out, or give n.", "best_of", "unsupported_parameter")


def _refusal(kind: type[Body], error: ValidationError) -> RequestError:
    """The error in plain words, with the field that it is about."""
    detail = error.errors(include_url=False)[0]
    name, *inner = map(str, detail["loc"] or ("body",))
    param = name
    if name == "messages" and inner:
        param = ".".join([f"messages[{inner[0]}]", *inner[1:2]])
    if detail["type"] == "missing":
        return bad(f"{param} is missing.", param, "missing_parameter")
    if detail["type"] in ("too_long", "string_too_long"):
        unit = "characters" if detail["type"] == "string_too_long" else "elements"
        message = f"{param} is too long: the limit is {detail['ctx']['max_length']:,} {unit}."
        return bad(message, param, "limit_exceeded")
    what = "a list that is not empty" if detail["type"] == "too_short" else wanted(detail)
    if inner and (field := kind.model_fields[name]).description:  # one of several types, or a part of it
        what = str(field.description).partition(";")[0]
    return bad(f"{param} should be {what}, not {shown(detail['input'])}.", param, "invalid_value")
