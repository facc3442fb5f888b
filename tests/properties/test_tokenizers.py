"""Properties of every tokenizer that acorn trains, for any training text and any input."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from acorn.tokenizer import bpe, wordpiece
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

BYTES_AND_CONTROLS = 256 + len(bpe.SPECIAL_TOKENS)
CONTROLS = (*bpe.SPECIAL_TOKENS, wordpiece.SEPARATOR, "<s>", "</s>")

anything = st.text(max_size=40)
# Control tokens: whole, truncated, concatenated, and with characters inside that the normalizer removes.
with_controls = st.lists(
    st.one_of(st.sampled_from(CONTROLS), st.sampled_from(["<|", "|>", "EOS", "<|E\x00OS|>", " ", "\n"]), anything),
    max_size=6,
).map("".join)


def has_letters(text: str) -> bool:
    return bool(text) and not text.isspace()


def byte_level_of(texts: list[str], more: int) -> Tokenizer:
    return train(lambda: texts, "bpe", BYTES_AND_CONTROLS + more)


def word_piece_of(text: str, more: int) -> Tokenizer:
    """A tokenizer with every letter of `text`."""
    letters = wordpiece.alphabet([text])
    return train(lambda: [text], "wordpiece", len(wordpiece.SPECIAL_TOKENS) + 2 * len(letters) + more)


LEARNED = "The tree that stood there was the tree of the lord, 1,234 years old. <|EOS|> <|user|>"


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {"bpe": byte_level_of([LEARNED] * 4, 60), "wordpiece": word_piece_of(LEARNED, 60)}


@settings(max_examples=60)
@given(
    st.lists(with_controls, min_size=1, max_size=4), st.lists(with_controls, min_size=1, max_size=4), st.integers(0, 80)
)
def test_byte_level_is_lossless_for_any_text(learned: list[str], texts: list[str], more: int) -> None:
    assume(any(map(has_letters, learned)))
    tokenizer = byte_level_of(learned, more)
    assert tokenizer.lossless
    for text, ids in zip([*texts, *learned], tokenizer.encode_documents([*texts, *learned]), strict=True):
        assert tokenizer.decode(ids) == text
        assert not set(ids) & {tokenizer.separator_id, *tokenizer.reserved_ids}
        assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#"), max_size=60), st.integers(0, 40))
def test_wordpiece_decodes_to_the_normalized_text_except_spaces(text: str, more: int) -> None:
    """Without `#`: a learned piece `##` looks like the mark of a piece within a word."""
    assume(has_letters(wordpiece.reader().normalizer.normalize_str(text)) and wordpiece.UNKNOWN not in text)
    tokenizer = word_piece_of(text, more)
    (ids,) = tokenizer.encode_documents([text])
    assert tokenizer.unknown_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == tokenizer.normalize(text).replace(" ", "")


@settings(max_examples=60)
@given(anything)
def test_wordpiece_maps_only_unspellable_words_to_unknown(tokenizers: dict[str, Tokenizer], text: str) -> None:
    """Each word decodes to itself, or is one unknown token."""
    tokenizer = tokenizers["wordpiece"]
    letters = set(wordpiece.alphabet([LEARNED]))
    words = [word for word, _ in wordpiece.reader().pre_tokenizer.pre_tokenize_str(tokenizer.normalize(text))]
    for word in words:
        (ids,) = tokenizer.encode_documents([word])
        if set(word) <= letters and "#" not in word:
            assert tokenizer.decode(ids) == word
        else:
            assert ids == [tokenizer.unknown_id]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
@given(text=with_controls)
@settings(max_examples=80)
def test_control_tokens_in_documents_are_text(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    (ids,) = tokenizer.encode_documents([text])
    assert not set(ids) & {tokenizer.separator_id, *tokenizer.reserved_ids}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
@given(text=with_controls)
@settings(max_examples=80)
def test_a_prompt_is_one_separator_and_the_text(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    """In a prompt control tokens are matched; text between them is encoded as in a document."""
    tokenizer = tokenizers[kind]
    first, *ids = tokenizer.encode_prompt(text)
    assert first == tokenizer.separator_id
    controls = [
        name for name in CONTROLS if name in text and tokenizer.encode_prompt(name)[1:] != _plain(tokenizer, name)
    ]
    if controls:
        assert set(ids) & {tokenizer.separator_id, *tokenizer.reserved_ids}
    else:
        assert ids == _plain(tokenizer, text)


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_documents([text])[0]
