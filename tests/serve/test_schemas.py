"""Bodies of any shape are read or refused, and what is refused is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.serve.request_errors import RequestError
from acorn.serve.schemas import (
    MEANINGLESS,
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    ignored_fields,
    parsed,
)

KINDS = [CompletionRequest, ChatRequest, TokenizeRequest, DetokenizeRequest, ClassifyRequest]
NAMES = sorted({name for kind in KINDS for name in kind.model_fields} | set(MEANINGLESS) | {"best_of", "user"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "include_usage", "5"]), inner, max_size=3)
    ),
    max_leaves=8,
)
MESSAGES = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_any_body_is_read_or_refused_with_a_field(kind, body) -> None:
    for extra in ({}, {"prompt": "a", "messages": MESSAGES, "input": "a"}):
        try:
            parsed(kind, {**extra, **body})
        except RequestError as error:
            refused = error
        else:
            continue
        assert refused.status == 400
        assert refused.param
        assert refused.param.partition("[")[0].partition(".")[0] in refused.message
        assert len(refused.message) < 1500


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "a"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ("a", "messages[0]"),
    ],
)
def test_messages_are_named_with_their_place(message: object, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(ChatRequest, {"messages": [message]})
    assert refused.value.param == param


def test_null_is_absent_and_unknown_fields_are_kept_to_be_named() -> None:
    nulls = dict.fromkeys(NAMES)
    read = parsed(CompletionRequest, {**nulls, "unknown": 1, "user": "me", "tools": [], "n": 2, "best_of": 2})
    assert read.temperature == 1
    assert read.n == 2
    assert ignored_fields(read) == ["unknown", "user"]


@pytest.mark.parametrize("name", [*MEANINGLESS, "best_of"])
def test_fields_whose_meaning_would_be_lost_are_refused(name: str) -> None:
    for value in ("x", {"type": "json_object"}, True, 5):
        with pytest.raises(RequestError, match=name) as refused:
            parsed(ChatRequest, {"messages": MESSAGES, name: value})
        assert refused.value.param == name
    for value in MEANINGLESS.get(name, (1,)):
        assert ignored_fields(parsed(ChatRequest, {"messages": MESSAGES, name: value})) == []


def test_numbers_are_neither_booleans_nor_strings() -> None:
    for name in ("temperature", "top_p", "top_k", "min_p", "n", "seed", "frequency_penalty", "max_tokens"):
        for value in (True, "1", [1]):
            with pytest.raises(RequestError) as refused:
                parsed(CompletionRequest, {name: value})
            assert refused.value.param == name
    for name in ("stream", "echo", "ignore_eos"):
        for value in (1, 0, "true"):
            with pytest.raises(RequestError):
                parsed(CompletionRequest, {name: value})
