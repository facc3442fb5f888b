"""The tokens at which the words of a sentence get their tags."""

from __future__ import annotations

import unicodedata
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from other_models import style
from small_models import LINES

from acorn.errors import InputError
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train
from acorn.tokenizer.word_text import WordText, _last_tokens

NAMES = ("bpe", "wordpiece", "gpt2", "llama-2", "llama-3", "qwen3")
WORDS = st.text("aeilmnorst<|>EOS[]UNK.,\u0301\u00e9\u4e2d\U0001f333'-0159", min_size=1, max_size=9)
WORDS = WORDS.filter(lambda word: word.strip("\u0301"))  # accents alone are nothing to WordPiece


@cache
def tokenizer_of(name: str) -> Tokenizer:
    if name in ("bpe", "wordpiece"):
        return train(lambda: LINES, name, 400, entries=["<unk>"])  # type: ignore[arg-type]
    return Tokenizer.from_json(style(name)[0], as_it_is=True)


@pytest.mark.parametrize("name", NAMES)
@given(words=st.lists(WORDS, min_size=1, max_size=6))
def test_a_word_is_read_where_it_is_whole(name: str, words: list[str]) -> None:
    """The tokens up to the last one of a word are those of the sentence, and decode to all of the words so far. The
    word before it is not whole any earlier, and the next has not begun."""
    text, words = WordText(tokenizer_of(name)), [unicodedata.normalize("NFC", word) for word in words]
    [(ids, places)] = text.encode_words([words])
    assert ids == LabelText(tokenizer_of(name)).encode(" ".join(words))[0]
    assert places == sorted(set(places))
    assert len(places) == len(words)
    if name != "wordpiece":  # which does not decode to the text
        beginning = text.encode("")[0]
        first = len(beginning) if ids[: len(beginning)] == beginning else 0
        for number, place in enumerate(places, start=1):
            assert text.tokenizer.decode(ids[first : place + 1]).split() == words[:number]


def test_tokens_that_share_a_character_are_refused() -> None:
    with pytest.raises(InputError, match="a part of two words, 'an' and 'oak'"):
        _last_tokens(["an", "oak"], [(0, 0), (0, 4), (4, 6)])
    with pytest.raises(InputError, match="'oak' has no token"):
        _last_tokens(["an", "oak"], [(0, 0), (0, 2), (2, 3)])
    assert _last_tokens(["an", "oak", "."], [(0, 0), (0, 1), (1, 2), (2, 4), (4, 6), (6, 7), (7, 8)]) == [2, 4, 6]
