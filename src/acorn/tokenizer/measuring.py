"""Measures how well a tokenizer fits a text: bytes per token, and how much of the text it loses."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from acorn.tokenizer.batching import batches
from acorn.tokenizer.sized_text import SizedText, text_and_bytes
from acorn.tokenizer.tokenizer import Tokenizer

BATCH_CHARACTERS = 1 << 20
MAX_DROPPED_LETTER_RATE = 0.001  # share of letters and marks; above it there is a warning
MIN_ROUND_TRIP_RATE = 0.99  # share of words; below it there is a warning
MAX_SAMPLES = 5


@dataclass(frozen=True)
class TokenizerReport:
    """Figures for one tokenizer on one text. Shares are 0 to 1; for an empty text, those of a lossless tokenizer.

    Attributes:
        vocab_size: entries of the vocabulary.
        bytes_per_token: UTF-8 bytes of the original text per token, without separators.
        unknown_rate: share of the tokens that are the unknown token although the text does not contain its name.
        round_trip_rate: share of the text's words (separated by white space) that are unchanged after encoding and
            decoding, apart from spaces inside them; for a lossless tokenizer, the share of words in documents that are
            decoded exactly.
        dropped_letter_rate: share of the text's letters and marks (Unicode L and M, each accent counted separately)
            that the normalizer drops or replaces.
        samples: a few words that change, each with the result of decoding.
    """

    vocab_size: int
    bytes_per_token: float
    unknown_rate: float
    round_trip_rate: float
    dropped_letter_rate: float
    samples: tuple[tuple[str, str], ...] = ()


def measure(tokenizer: Tokenizer, texts: str | Iterable[str | SizedText]) -> TokenizerReport:
    """Measures `tokenizer` on `texts`, which should be held-out text. A single string counts as a list of one.

    Texts are streamed: memory holds one batch of documents, and the distinct words.
    """
    texts = [texts] if isinstance(texts, str) else texts
    n_bytes = tokens = unknown = 0
    characters: Counter[str] = Counter()
    kept, words = 0, 0
    round_trip = RoundTrip(tokenizer)
    sized = map(text_and_bytes, texts)
    for sized_batch in batches(sized, lambda item: len(item[0]), BATCH_CHARACTERS):
        batch = [text for text, _ in sized_batch]
        n_bytes += sum(size for _, size in sized_batch)
        encoded = tokenizer.encode_documents(batch)
        tokens += sum(map(len, encoded))
        for text, ids in zip(batch, encoded, strict=True):
            characters.update(text)
            unknown += unspelled_tokens(tokenizer, text, ids)
        for n_words, n_kept in round_trip.words_and_kept(batch, encoded):
            words += n_words
            kept += n_kept
    return TokenizerReport(
        vocab_size=tokenizer.vocab_size,
        bytes_per_token=n_bytes / tokens if tokens else 0.0,
        unknown_rate=unknown / tokens if tokens else 0.0,
        round_trip_rate=kept / words if words else 1.0,
        dropped_letter_rate=_dropped_letters(tokenizer, characters),
        samples=tuple(round_trip.samples.items()),
    )


class RoundTrip:
    """Counts the words of documents that are unchanged after encoding and decoding (see `TokenizerReport`).

    Attributes:
        samples: up to MAX_SAMPLES words that change -> the result of decoding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._came_back: dict[str, str] = {}
        self.samples: dict[str, str] = {}

    def words_and_kept(self, texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
        """For each text, its words and how many of them are unchanged.

        Args:
            encoded: the ids of each text from `encode_documents`.
        """
        tokenizer, came_back = self._tokenizer, self._came_back
        split = [text.split() for text in texts]
        if tokenizer.lossless:
            return [
                (len(words), len(words) if tokenizer.decode(ids, skip_special_tokens=False) == text else 0)
                for text, words, ids in zip(texts, split, encoded, strict=True)
            ]
        fresh = [word for word in dict.fromkeys(word for words in split for word in words) if word not in came_back]
        for word, ids in zip(fresh, tokenizer.encode_documents(fresh), strict=True):
            came_back[word] = tokenizer.decode(ids, skip_special_tokens=False).replace(" ", "")
            if came_back[word] != word and len(self.samples) < MAX_SAMPLES:
                self.samples[word] = came_back[word]
        return [(len(words), sum(came_back[word] == word for word in words)) for words in split]


def unspelled_tokens(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> int:
    """The number of `ids` that are the unknown token although the text does not contain the token's name.

    Args:
        ids: the ids of `text` from `encode_documents`.
    """
    if tokenizer.unknown is None or tokenizer.unknown_id is None:
        return 0
    return max(0, ids.count(tokenizer.unknown_id) - text.count(tokenizer.unknown))


def mangling_warning(report: TokenizerReport) -> str | None:
    """A warning if the tokenizer loses much of the text, else None."""
    if report.dropped_letter_rate <= MAX_DROPPED_LETTER_RATE and report.round_trip_rate >= MIN_ROUND_TRIP_RATE:
        return None
    examples = ", ".join(f"{word!r} becomes {back!r}" for word, back in report.samples)
    return (
        f"This tokenizer loses part of the text: its normalizer drops {report.dropped_letter_rate:.2%} of the letters "
        f"and marks, and only {report.round_trip_rate:.2%} of the words of held-out text are decoded unchanged"
        + (f" ({examples})" if examples else "")
        + ". The model cannot learn what is lost. A tokenizer trained with tokenizer.kind=bpe loses nothing."
    )


def _dropped_letters(tokenizer: Tokenizer, characters: Counter[str]) -> float:
    """Compares the canonical decomposition of each character, in which accents are marks, before and after."""
    total = dropped = 0
    for character, n in characters.items():
        before = Counter(c for c in unicodedata.normalize("NFD", character) if unicodedata.category(c)[0] in "LM")
        after = Counter(unicodedata.normalize("NFD", tokenizer.normalize(character)))
        total += n * before.total()
        dropped += n * (before - after).total()
    return dropped / total if total else 0.0
