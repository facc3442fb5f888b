"""Byte-level BPE in the manner of GPT-2: lossless for every language, readable by every runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
# Room for finetuning inside the vocabulary, so that a chat model needs no new rows in its embedding.
RESERVED = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", PAD, *(f"<|reserved_{n}|>" for n in range(11)))
SPECIALS = (SEPARATOR, *RESERVED)


def alphabet() -> list[str]:
    """The 256 characters that stand for the byte values, in code-point order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def learn(texts: Iterable[str], vocab_size: int, entries: Sequence[str]) -> tokenizers.Tokenizer:
    """A BPE of at most `vocab_size` entries: SPECIALS, `entries`, the 256 bytes, learned merges."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIALS, *entries],
        initial_alphabet=alphabet(),
        show_progress=False,
    )
    trained = reader(models.BPE())
    trained.train_from_iterator(texts, trainer)
    # A fresh one around the learned model: for the trained backend the entries are special tokens.
    return reader(trained.model)


def reader(model: models.BPE) -> tokenizers.Tokenizer:
    """GPT-2's way to cut text into bytes and words, and back, around a vocabulary."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend
