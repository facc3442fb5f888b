"""WordPiece as in the preset `original`: small, for English, not lossless. Its text rules, and training.

The normalizer drops accents and control characters, so decoding does not restore the text. For any language other than
plain English the byte-level BPE is the better choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

UNKNOWN = "[UNK]"
SEPARATOR = "<|EOS|>"
SPECIAL_TOKENS = (UNKNOWN, SEPARATOR)
CONTINUATION = "##"  # marks a piece that does not begin a word
MAX_WORD_CHARACTERS = 100  # characters; a longer word is one [UNK]


def reader() -> tokenizers.Tokenizer:
    """A tokenizer with normalizer, pre-tokenizer and decoder, and an empty vocabulary."""
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

    Normalizer and pre-tokenizer handle each character independently of the others here. So it is enough to collect the
    distinct characters of the raw text, in memory bounded by the size of Unicode, and to pass those through them.
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
    """Trains a WordPiece of at most `vocab_size` entries: SPECIAL_TOKENS, `entries`, both forms of each letter, pieces.

    The library's trainer numbers the `##` letters in the order of a hash map, and the numbers break ties between
    pairs, so each process would learn a different vocabulary. Here the trainer gets both forms of each letter in a
    fixed order, which makes its result deterministic.
    """
    fixed = [*SPECIAL_TOKENS, *entries, *(CONTINUATION + letter for letter in letters)]
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
    # A new tokenizer: in the trained one the `##` letters are special tokens, which are matched anywhere in a text.
    backend = reader()
    backend.model = _model(dict(sorted(vocabulary.items(), key=lambda item: item[1])))
    return backend


def _model(vocabulary: dict[str, int]) -> models.WordPiece:
    return models.WordPiece(
        vocabulary,
        unk_token=UNKNOWN,
        max_input_chars_per_word=MAX_WORD_CHARACTERS,
        continuing_subword_prefix=CONTINUATION,
    )
