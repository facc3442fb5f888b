from __future__ import annotations

from typing import NamedTuple

import pytest

from acorn.tokenizer.measuring import TokenizerReport, mangling_warning, measure
from acorn.tokenizer.tokenizer import Tokenizer
from acorn.tokenizer.training import train

TEXT = "the cat sat on the mat , and Vietnam was far away . No [UNK] there"


@pytest.fixture(scope="module")
def word_piece() -> Tokenizer:
    return train(lambda: [TEXT] * 3, "wordpiece", 200)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    return train(lambda: [TEXT] * 3, "bpe", 300)


def test_plain_text_is_decoded_unchanged(word_piece: Tokenizer) -> None:
    report = measure(word_piece, [TEXT])
    assert report.bytes_per_token == len(TEXT) / len(word_piece.encode_documents([TEXT])[0])
    assert (report.unknown_rate, report.round_trip_rate, report.dropped_letter_rate) == (0.0, 1.0, 0.0)
    assert mangling_warning(report) is None


class Sized(NamedTuple):
    text: str
    n_bytes: int


@pytest.mark.parametrize("kind", ["word_piece", "byte_level"])
def test_bytes_per_token_counts_the_original(kind: str, request: pytest.FixtureRequest) -> None:
    """A bad byte is one byte of the original, although U+FFFD takes three bytes in the text."""
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    originals = [b"caf\xe9 \xff\xfe the cat", b"sat on the mat"]
    sized = [Sized(raw.decode("utf-8", "replace"), len(raw)) for raw in originals]
    tokens = sum(map(len, tokenizer.encode_documents([item.text for item in sized])))
    report = measure(tokenizer, sized)
    assert report.bytes_per_token == sum(map(len, originals)) / tokens
    assert measure(tokenizer, [item.text for item in sized]).bytes_per_token == (sum(map(len, originals)) + 6) / tokens


def test_dropped_accents_count_as_dropped_letters(word_piece: Tokenizer) -> None:
    """`Việt` decomposes into V, i, e, dot below, circumflex, t; the two marks are dropped."""
    report = measure(word_piece, ["Việt", "the cat"])
    assert report.dropped_letter_rate == pytest.approx(2 / (6 + 6))
    assert report.round_trip_rate == pytest.approx(2 / 3)
    assert report.samples == (("Việt", "Viet"),)


def test_composed_and_decomposed_text_have_equal_rates(word_piece: Tokenizer) -> None:
    composed, decomposed = measure(word_piece, ["\u00e9"]), measure(word_piece, ["e\u0301"])
    assert composed.dropped_letter_rate == decomposed.dropped_letter_rate == 0.5


def test_dropped_hindi_vowel_signs_count(word_piece: Tokenizer) -> None:
    """`में`: the letter ma and two nonspacing marks, which are dropped."""
    assert measure(word_piece, ["में"]).dropped_letter_rate == pytest.approx(2 / 3)


def test_unknown_tokens_in_the_text_itself_do_not_count(word_piece: Tokenizer) -> None:
    """Six tokens: one is `[UNK]` in the text, one a word of unknown letters."""
    report = measure(word_piece, ["the cat [UNK] 日本 the cat"])
    assert report.unknown_rate == pytest.approx(1 / 6)
    assert report.round_trip_rate == pytest.approx(5 / 6)


def test_a_lossless_tokenizer_decodes_documents_exactly(byte_level: Tokenizer) -> None:
    texts = ["Việt हिन्दी \t\n<|endoftext|> 日本", TEXT]
    report = measure(byte_level, texts)
    assert (report.unknown_rate, report.round_trip_rate, report.dropped_letter_rate) == (0.0, 1.0, 0.0)
    n_bytes = sum(len(text.encode()) for text in texts)
    assert report.bytes_per_token == n_bytes / sum(map(len, byte_level.encode_documents(texts)))


def test_batches_do_not_change_the_figures(word_piece: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [TEXT, "Việt é", "日本 the cat", ""] * 3
    whole = measure(word_piece, texts)
    monkeypatch.setattr("acorn.tokenizer.measuring.BATCH_CHARACTERS", 1)
    assert measure(word_piece, iter(texts)) == whole


def test_measuring_no_text_is_allowed(word_piece: Tokenizer) -> None:
    assert measure(word_piece, []) == TokenizerReport(word_piece.vocab_size, 0.0, 0.0, 1.0, 0.0)


def test_the_warning_names_losses_and_an_alternative() -> None:
    fine = TokenizerReport(8192, 4.0, 0.01, 0.9901, 0.0009)
    assert mangling_warning(fine) is None
    samples = (("Việt", "Viet"),)
    for report in (
        TokenizerReport(8192, 4.0, 0.0, 0.9901, 0.0011, samples),
        TokenizerReport(8192, 4.0, 0.0, 0.9899, 0.0, samples),
    ):
        warning = mangling_warning(report)
        assert warning is not None
        assert "tokenizer.kind=bpe" in warning
        assert "'Việt' becomes 'Viet'" in warning
