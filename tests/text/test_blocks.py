from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from acorn.text.blocks import cut_blocks

LINE_ENDS = st.sampled_from(["\n", "\n\n", "\r\n", "\r\n\r\n", " ", ""])
TEXTS = st.lists(st.tuples(st.text("ab é漢🌰", max_size=60), LINE_ENDS)).map(
    lambda pieces: "".join(text + end for text, end in pieces)
)


@given(TEXTS, st.integers(8, 80), st.integers(0, 200))
def test_joined_blocks_are_the_text(text: str, size: int, head: int) -> None:
    raw = text.encode()
    blocks = list(cut_blocks(raw[:head], io.BytesIO(raw[head:]), size))
    assert b"".join(blocks) == raw
    assert all(0 < len(block) <= size for block in blocks)
    assert "".join(block.decode() for block in blocks) == text  # no character is cut
    assert blocks == list(cut_blocks(raw, io.BytesIO(), size))  # independent of how the text is read


@given(st.binary(max_size=300), st.integers(8, 40))
def test_bytes_that_are_not_text_are_kept(raw: bytes, size: int) -> None:
    blocks = list(cut_blocks(b"", io.BytesIO(raw), size))
    assert b"".join(blocks) == raw
    assert all(0 < len(block) <= size for block in blocks)


def test_blocks_end_at_blank_lines_rather_than_line_ends() -> None:
    raw = b"one\ntwo\n\nthree\nfour\nfive"
    assert list(cut_blocks(raw, io.BytesIO(), 16)) == [b"one\ntwo\n\n", b"three\nfour\nfive"]
    crlf = b"one\r\ntwo\r\n\r\nthree\r\nfour"
    assert next(cut_blocks(crlf, io.BytesIO(), 20)) == b"one\r\ntwo\r\n\r\n"


def test_a_line_end_in_the_first_quarter_does_not_end_a_block() -> None:
    assert next(cut_blocks(b"a\n\n" + b"b" * 40, io.BytesIO(), 20)) == b"a\n\n" + b"b" * 17


def test_a_million_equal_characters_are_cut_into_equal_blocks() -> None:
    """Fault 4: one line of a million equal characters."""
    lengths = [len(block) for block in cut_blocks(b"", io.BytesIO(b"x" * 1_000_000), 16_384)]
    assert lengths == [16_384] * 61 + [1_000_000 - 61 * 16_384]
