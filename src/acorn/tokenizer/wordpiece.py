"""The original's WordPiece: small, English, and not lossless. How it reads text, and how its vocabulary is learned.

The normaliser drops accents and control characters, so text does not come back as it went in; for any language
but plain English the byte-level BPE is the better choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

UNKNOWN = "[UNK]"
SEPARATOR = "<|EOS|>"
SPECIALS = (UNKNOWN, SEPARATOR)
CONTINUATION = "##"  # marks a piece that does not begin a word
LONGEST_WORD = 100  # characters; a longer word is one [UNK]


def reader() -> tokenizers.Tokenizer:
    """Normaliser, pre-tokenizer and decoder around an empty vocabulary."""
    backend = tokenizers.Tokenizer(_model({}))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"[^\P{C}\n\t\r]"), ""),  # Unicode's class Other: controls, unassigned, private
            normalizers.Replace(Regex(r"\s"), " "),
            normalizers.NFD(),
            normalizers.StripAccents(),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return backend


def alphabet(texts: Iterable[str]) -> list[str]:
    """The characters that reach the vocabulary, in code-point order.

    Normaliser and pre-tokenizer treat each character by itself as far as this set goes, so the distinct characters
    of the raw text are collected, in memory bounded by Unicode's size, and only those are passed through them.
    """
    raw: set[str] = set()
    for text in texts:
        raw.update(text)
    backend = reader()
    normalized = (backend.normalizer.normalize_str(character) for character in raw)
    words = (word for text in normalized for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    return sorted(set("".join(words)))


def learn(
    texts: Iterable[str], letters: Sequence[str], vocab_size: int, entries: Sequence[str]
) -> tokenizers.Tokenizer:
    """A WordPiece of at most `vocab_size` entries: SPECIALS, `entries`, every letter in both forms, learned pieces.

    The library's trainer numbers the `##` letters in the order of a hash map, and the numbers decide ties between
    pairs, so each process would learn another vocabulary. Giving it every letter in both forms, in a fixed
    order, leaves it nothing to number by chance.
    """
    fixed = [*SPECIALS, *entries, *(CONTINUATION + letter for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=fixed,
        initial_alphabet=list(letters),
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    backend = reader()
    backend.train_from_iterator(texts, trainer)
    vocabulary = backend.get_vocab()
    # A fresh one: for the trained backend the `##` letters are special tokens, to be matched anywhere in a text.
    backend = reader()
    backend.model = _model(dict(sorted(vocabulary.items(), key=lambda item: item[1])))
    return backend


def _model(vocabulary: dict[str, int]) -> models.WordPiece:
    return models.WordPiece(
        vocabulary,
        unk_token=UNKNOWN,
        max_input_chars_per_word=LONGEST_WORD,
        continuing_subword_prefix=CONTINUATION,
    )
