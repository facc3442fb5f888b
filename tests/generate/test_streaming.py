"""What is streamed is never taken back, and joined it is the whole text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.generate.streaming import WINDOW_TOKENS, TextStream
from acorn.tokenizer.tokenizer import Tokenizer


@pytest.fixture(params=["bpe", "wordpiece"], name="tokenizer")
def _tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


def stream(tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Sequence[int], stop: Sequence[str] = ()) -> list[str]:
    """The pieces returned for each token and at the end."""
    running = TextStream(tokenizer, prompt_ids, stop)
    pieces = []
    for token in ids:
        pieces.append(running.add(token))
        if running.stopped:
            break
    pieces.append(running.finish())
    assert running.completion == "".join(pieces)
    return pieces


def completion(tokenizer: Tokenizer, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
    """The decoded text of all ids, without the prompt."""
    prompt, whole = tokenizer.decode([*prompt_ids]), tokenizer.decode([*prompt_ids, *ids])
    assert whole.startswith(prompt)
    return whole[len(prompt) :]


@pytest.mark.parametrize("prompt", ["", "The old oak", "Việt 橡", "don't"])
def test_joined_pieces_equal_the_decoded_text(tokenizer: Tokenizer, prompt: str) -> None:
    """Random ids are harder than those of a model: incomplete characters, special tokens, word pieces without words."""
    prompt_ids = tokenizer.encode_prompt(prompt)

    @given(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=3 * WINDOW_TOKENS))
    def check(ids: list[int]) -> None:
        pieces = stream(tokenizer, prompt_ids, ids)
        assert "".join(pieces) == completion(tokenizer, prompt_ids, ids)

    check()


def test_every_piece_is_returned_as_soon_as_it_is_final(tokenizer: Tokenizer, lines: list[str]) -> None:
    """Fault 56: text is returned with its token; only incomplete characters are held back, no longer than necessary."""
    ids = tokenizer.encode_documents(lines[:8])
    flat = [token for document in ids for token in document]
    prompt_ids = tokenizer.encode_prompt("An")
    running = TextStream(tokenizer, prompt_ids)
    for n, token in enumerate(flat, start=1):
        running.add(token)
        so_far = completion(tokenizer, prompt_ids, flat[:n])
        assert running.completion == so_far.rstrip("\ufffd")
    assert len(flat) > 3 * WINDOW_TOKENS


def test_no_piece_contains_an_incomplete_character(bpe: Tokenizer) -> None:
    """Fault 56: four-, three- and two-byte characters, one byte per token."""
    text = "a🌳b橡c𝄞éß🏳️‍🌈" * 8
    (ids,) = bpe.encode_documents([text])
    assert len(ids) > len(text)
    pieces = stream(bpe, bpe.encode_prompt("x"), ids)
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


def test_a_replacement_character_in_the_text_itself_is_returned(bpe: Tokenizer) -> None:
    """Fault 56: with the next token, or at the end."""
    (ids,) = bpe.encode_documents(["a\ufffdb\ufffd\ufffd"])
    pieces = stream(bpe, bpe.encode_prompt(""), ids)
    assert "".join(pieces) == "a\ufffdb\ufffd\ufffd"
    assert pieces[-1] == "\ufffd\ufffd"


def test_a_character_that_stays_incomplete_is_returned_as_decoded(bpe: Tokenizer) -> None:
    first, *_, last = bpe.encode_documents(["🌳"])[0]
    letter = bpe.encode_documents(["z"])[0]
    assert "".join(stream(bpe, bpe.encode_prompt(""), [first, *letter, last])) == "\ufffdz\ufffd"


def test_pieces_of_words_join_without_a_space(wordpiece: Tokenizer) -> None:
    vocabulary = {wordpiece.piece(token): token for token in range(wordpiece.vocab_size)}
    ids = [vocabulary[piece] for piece in ("o", "##a", "##k", ",", "a")]
    assert stream(wordpiece, wordpiece.encode_prompt("The"), ids) == [" o", "a", "k", ",", " a", ""]


@pytest.mark.parametrize("n", range(WINDOW_TOKENS - 2, WINDOW_TOKENS + 3))
def test_a_piece_joins_its_word_across_a_special_token(wordpiece: Tokenizer, n: int) -> None:
    """At any position of the decoded window, although its first token decodes differently."""
    (word,) = wordpiece.encode_documents(["oak"])
    vocabulary = {wordpiece.piece(token): token for token in range(wordpiece.vocab_size)}
    ids = [*(word * n)[:n], wordpiece.separator_id, vocabulary["##s"], *word]
    prompt_ids = wordpiece.encode_prompt("The")
    assert "".join(stream(wordpiece, prompt_ids, ids)) == completion(wordpiece, prompt_ids, ids)


def test_after_an_empty_prompt_text_begins_without_a_space(wordpiece: Tokenizer) -> None:
    """Fault 54."""
    ids = wordpiece.encode_documents(["The oak"])[0]
    assert "".join(stream(wordpiece, wordpiece.encode_prompt(""), ids)) == "The oak"


def test_the_cost_of_a_token_does_not_grow_with_the_text(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = bpe.decode
    monkeypatch.setattr(bpe, "decode", lambda ids: decoded.append(len(ids)) or decode(ids))
    stream(bpe, bpe.encode_prompt("An"), bpe.encode_documents(["oak " * 500])[0])
    assert max(decoded) <= 2 * WINDOW_TOKENS


@pytest.mark.parametrize(
    ("text", "stop", "wanted"),
    [
        ("the old oak stood", ["oak"], "the old "),
        ("the old oak stood", ["ld oa"], "the o"),  # over several tokens
        ("the old oak stood", ["oaks", "stood!"], "the old oak stood"),  # begun, never completed
        ("the old oak stood", ["oak", "old"], "the "),  # the one that comes first
        ("the old oak stood", ["k", "oak"], "the old "),  # both complete at once: the one that begins first
        ("the old oak stood", ["the"], ""),
        ("the old oak stood", ["d"], "the ol"),
        ("aaab", ["aab"], "a"),  # begins inside its own beginning
        ("one\n\ntwo", ["\n\n"], "one"),
        ("ab🌳c", ["🌳"], "ab"),
    ],
)
def test_text_ends_before_a_stop_string(bpe: Tokenizer, text: str, stop: list[str], wanted: str) -> None:
    (ids,) = bpe.encode_documents([text])
    pieces = stream(bpe, bpe.encode_prompt(""), ids, stop)
    assert "".join(pieces) == wanted


def test_stop_strings_in_the_prompt_or_across_its_end_are_ignored(bpe: Tokenizer) -> None:
    prompt_ids = bpe.encode_prompt("stop st")
    (ids,) = bpe.encode_documents(["op it"])
    assert "".join(stream(bpe, prompt_ids, ids, ["stop"])) == "op it"


@given(
    st.text("ab", max_size=2 * WINDOW_TOKENS),
    st.lists(st.text("ab", min_size=2, max_size=6), min_size=1, max_size=3),
)
def test_stop_strings_equal_a_plain_search(bpe_letters: Tokenizer, text: str, stop: list[str]) -> None:
    """With one letter per token, the text ends before the first stop string that is complete."""
    wanted = text
    for end in range(1, len(text) + 1):
        found = [place for s in stop if (place := text[:end].find(s)) >= 0]
        if found:
            wanted = text[: min(found)]
            break
    ids = [bpe_letters.encode_documents([letter])[0][0] for letter in text]
    pieces = stream(bpe_letters, bpe_letters.encode_prompt(""), ids, stop)
    assert "".join(pieces) == wanted


@pytest.fixture(scope="session")
def bpe_letters(bpe: Tokenizer) -> Tokenizer:
    assert all(len(ids) == 1 for ids in bpe.encode_documents(["a", "b"]))
    return bpe
