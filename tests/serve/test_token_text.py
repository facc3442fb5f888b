"""Tokens as text and bytes, for tokenizers of several kinds."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import LINES

from acorn.serve.token_text import TokenTexts
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train


@pytest.fixture(scope="module")
def bpe() -> TokenTexts:
    return TokenTexts(train(lambda: LINES, "bpe", 340))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@settings(max_examples=50)
def test_the_bytes_of_a_texts_tokens_are_those_of_the_text(bpe: TokenTexts, text: str) -> None:
    (ids,) = bpe.tokenizer.encode_documents(text)
    assert b"".join(map(bpe.bytes, ids)) == text.encode()


def test_parts_of_a_character_have_names_of_their_own(bpe: TokenTexts) -> None:
    names = {bpe.name(token) for token in range(bpe.tokenizer.vocab_size) if bpe.tokenizer.piece(token)}
    assert len(names) == bpe.tokenizer.vocab_size
    (ids,) = bpe.tokenizer.encode_documents("橡")
    assert [bpe.name(token) for token in ids] == [r"bytes:\xe6", r"bytes:\xa9", r"bytes:\xa1"]
    assert bpe.text(ids[0]) == "\ufffd"
    assert bpe.text(bpe.tokenizer.separator_id) == "<|endoftext|>"


def test_pieces_of_words_keep_their_spaces() -> None:
    texts = TokenTexts(train(lambda: LINES, "wordpiece", 200))
    ids = texts.tokenizer.encode_documents("walking talks")[0]
    assert "".join(map(texts.text, ids)) == " walking talks"


def test_bytes_of_a_vocabulary_in_the_form_of_sentencepiece() -> None:
    vocabulary = {"<unk>": 0, "</s>": 1, **{f"<0x{byte:02X}>": byte + 2 for byte in range(256)}, "▁": 258, "a": 259}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    steps = [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
    backend.decoder = tokenizers.decoders.Sequence(steps)
    backend.add_special_tokens(["</s>", "<unk>"])
    texts = TokenTexts(Tokenizer(backend, as_it_is=True))
    (ids,) = texts.tokenizer.encode_documents("a 橡a")
    assert b"".join(map(texts.bytes, ids)) == "a 橡a".encode()
    assert texts.bytes(300) == b""
