from __future__ import annotations

import encodings
import io
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acorn.config import DataConfig
from acorn.errors import InputError
from acorn.text import transcoding
from acorn.text.transcoding import Utf8Stream, as_utf8, find_bad_bytes, marked, share_of

ENCODINGS = [
    "utf-8",
    "latin-1",
    "cp1252",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "shift_jis",
    "gb18030",
    "iso2022_jp",
    "utf-7",
]
TEXTS = st.text(st.sampled_from("abc é\n\r\0ü漢字🌰\ufeff"))


def stream(raw: bytes, encoding: str) -> bytes:
    return Utf8Stream(io.BytesIO(raw), encoding, "a.txt").read()


@pytest.fixture(params=[1, 2, 3, 1 << 18])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of several sizes, down to one byte."""
    monkeypatch.setattr(transcoding, "_CHUNK_BYTES", request.param)
    return int(request.param)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_converting_keeps_the_text(chunk: int, encoding: str) -> None:
    text = "one é ü\r\n漢字 and more\n" * 9
    raw = text.encode(encoding, "ignore")
    assert stream(raw, encoding) == raw.decode(encoding).encode()
    assert find_bad_bytes(io.BytesIO(raw), encoding) is None


CODECS = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))


@pytest.mark.parametrize("name", CODECS)
def test_every_encoding_that_a_config_accepts_can_be_read(name: str) -> None:
    """Against Python's own encoder, for all its codecs. Bad bytes raise no error."""
    try:
        encoding = DataConfig(encoding=name).encoding
    except ValidationError:
        return
    text = "One line of text - and a number: 17.\r\n" * 3
    raw = text.encode(encoding)
    assert stream(raw, encoding).decode() == text
    assert find_bad_bytes(io.BytesIO(raw), encoding) is None
    if encoding not in ("utf-16", "utf-32"):  # which need their mark
        assert isinstance(stream(bytes(range(256)), encoding), bytes)
        find_bad_bytes(io.BytesIO(bytes(range(256))), encoding)


@given(raw=st.binary(max_size=60), encoding=st.sampled_from(["utf-8", "cp1252", "utf-16-le", "shift_jis", "ascii"]))
def test_bad_bytes_are_marked_where_python_replaces_them(raw: bytes, encoding: str) -> None:
    """Against Python's own decoder: the same characters, and at most one mark per byte."""
    ours = stream(raw, encoding).decode("utf-8", "replace")
    theirs = raw.decode(encoding, "replace")
    squeezed = [part for part in ours.split("\ufffd") if part]
    assert squeezed == [part for part in theirs.split("\ufffd") if part]
    assert ours.count("\ufffd") <= len(raw)
    assert (b"\xff" in stream(raw, encoding)) == ("\ufffd" in theirs)


def first_bad_byte(raw: bytes, encoding: str) -> int | None:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return None


@given(raw=st.binary(max_size=60), encoding=st.sampled_from(["utf-8", "cp1252", "utf-16-le", "shift_jis", "ascii"]))
def test_the_first_bad_byte_is_the_one_python_reports(raw: bytes, encoding: str) -> None:
    found = find_bad_bytes(io.BytesIO(raw), encoding)
    offset = first_bad_byte(raw, encoding)
    assert (found and found.offset) == offset
    if found:
        assert found.byte == raw[found.offset]
        assert found.total == len(raw)
        assert found.count == stream(raw, encoding).count(b"\xff") > 0


def test_the_first_bad_byte_of_a_file_read_in_pieces(chunk: int) -> None:
    raw = "漢字".encode() + b"ab\xe6\xbc" + "é".encode() + b"\xff"
    found = find_bad_bytes(io.BytesIO(raw), "utf-8")
    assert found is not None
    assert (found.offset, found.byte, found.count, found.complete) == (8, 0xE6, 3, True)
    assert found.share() == f"bad bytes in the file: 3 of {len(raw)}, {3 / len(raw):.2%}"


def test_only_the_beginning_of_a_large_file_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcoding, "MAX_SCAN_BYTES", 100)
    monkeypatch.setattr(transcoding, "_CHUNK_BYTES", 50)
    found = find_bad_bytes(io.BytesIO(b"\xff" * 1000), "utf-8")
    assert found is not None
    assert (found.total, found.complete) == (100, False)
    assert "first 100 bytes of the file" in found.share()
    assert find_bad_bytes(io.BytesIO(b"a" * 500 + b"\xff"), "utf-8") is None


def test_utf16_is_recognized_by_its_byte_order_mark_only() -> None:
    for raw, expected in (("é".encode("utf-16") + b"\xe9", True), (b"\xe9\xff\xfe", False)):
        found = find_bad_bytes(io.BytesIO(raw), "utf-8")
        assert found is not None
        assert found.like_utf16 is expected


def test_a_text_that_the_codec_refuses_is_an_input_error_with_advice() -> None:
    with pytest.raises(InputError, match="not utf-16: UTF-16 stream does not start with BOM") as error:
        stream(b"plain", "utf-16")
    assert error.value.where == "a.txt"
    assert "utf-16-le" in error.value.fix


@given(text=TEXTS, halves=st.text(st.sampled_from("\ud800\udcff\udc80"), max_size=4))
def test_lone_surrogates_become_marks(text: str, halves: str) -> None:
    assert as_utf8(text) == text.encode()
    assert as_utf8(text + halves) == text.encode() + b"\xff" * len(halves)


def test_a_mark_represents_one_byte() -> None:
    assert as_utf8(marked(b"a\xe9\xe2\x82b")) == b"a\xff\xff\xffb"
    assert share_of(1, 3) == "1 of 3, 33.33%"
    assert share_of(1, 1_000_000) == "1 of 1,000,000, under 0.01%"
