"""Bodies that are no JSON objects of the interface."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.serve.json_body import json_object
from acorn.serve.limits import LIMITS
from acorn.serve.request_errors import RequestError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, JSON, max_size=3))
def test_what_python_writes_is_read(value: dict) -> None:
    assert json_object(json.dumps(value).encode()) == value
    assert json_object(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0123eE+-.\\ud8nul', max_size=60).map(str.encode))
def test_any_bytes_give_an_object_or_400(body: bytes) -> None:
    try:
        found: object = json_object(body)
    except RequestError as error:
        found = error
    if isinstance(found, RequestError):
        assert (found.status, found.code) == (400, "invalid_json")
        assert len(found.message) < 1000
    else:
        assert found == json.loads(body)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"\xff{}", "UTF-8: byte 0"),
        (b'{"a": "\xe2\x80"}', "UTF-8: byte 7"),
        (b"{} {}", "not JSON"),
        (b"[]", "no.* object|not a JSON object"),
        (b"1", "not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "64 bits"),
        (b'{"a": 9223372036854775808}', "64 bits"),
        (b'{"a": -9223372036854775809}', "64 bits"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "'b' occurs twice"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "nested too deeply"),
    ],
)
def test_what_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told) as refused:
        json_object(body)
    assert refused.value.status == 400


def test_integers_of_64_bits_are_read() -> None:
    assert json_object(b'{"a": [9223372036854775807, -9223372036854775808]}') == {"a": [2**63 - 1, -(2**63)]}


def test_just_the_limit_of_nesting_is_read() -> None:
    inner = LIMITS.nesting - 1
    assert json_object(b'{"a": ' + b"[" * inner + b"]" * inner + b"}")
    assert json_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
