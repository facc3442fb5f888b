"""Tokens as marked text."""

from __future__ import annotations

import pytest
from small_models import LINES

from acorn.report.token_marks import CONTROL, LEARNED, READ, marked_text
from acorn.text.examples import Message
from acorn.tokenizer.chat_format import ChatFormat, Encoded
from acorn.tokenizer.completion_format import CompletionFormat
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train(lambda: LINES, "bpe", 320)


@pytest.fixture(scope="module")
def chat(bpe: Tokenizer) -> Encoded:
    messages = [Message("user", "Việt 🙂\n<|end|>", False), Message("assistant", "a\x1b[31mb", True)]
    return ChatFormat(bpe).encode(messages)


def test_brackets_enclose_what_is_learned(bpe: Tokenizer, chat: Encoded) -> None:
    """Control tokens have their names; what could upset a terminal is escaped."""
    assert marked_text(bpe, chat, colored=False).plain == (
        "<|endoftext|><|user|>Việt 🙂\\n\n<|end|><|end|><|assistant|>[[a\\x1b[31mb<|end|>]]"
    )


def test_colors_tell_learned_tokens_and_control_tokens(bpe: Tokenizer, chat: Encoded) -> None:
    text = marked_text(bpe, chat, colored=True)
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert styles["a\\x1b[31mb"] == LEARNED
    assert styles["Việt 🙂\\n\n<|end|>"] == READ  # the user's own, as text
    assert styles["<|endoftext|><|user|>"] == f"{READ} {CONTROL}"
    assert [span.style for span in text.spans][-1] == f"{LEARNED} {CONTROL}"
    assert "[[" not in text.plain


def test_wordpiece_keeps_its_spaces() -> None:
    tokenizer = train(lambda: LINES, "wordpiece", 200)
    encoded = CompletionFormat(tokenizer).encode("the old oak ", "stood there")
    plain = marked_text(tokenizer, encoded, colored=False).plain
    assert plain.replace("[[", "").replace("]]", "") == tokenizer.decode(encoded.ids, skip_special_tokens=False)
    assert plain.startswith(tokenizer.separator)
    assert plain.endswith(f"stood there {tokenizer.separator}]]")


def test_a_character_between_two_kinds_of_tokens(bpe: Tokenizer) -> None:
    """A model whose tokens share a character: each part is shown as what is left of it."""
    (ids,) = bpe.encode_documents("é€")
    trained = [number >= 1 for number in range(len(ids))]
    plain = marked_text(bpe, Encoded(ids, trained), colored=False).plain
    assert plain.count("[[") == 1
    assert plain.endswith("€]]")
