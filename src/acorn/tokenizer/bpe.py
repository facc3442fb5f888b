"""Byte-level BPE like GPT-2's: lossless in every language, and supported by every runtime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SEPARATOR = "<|endoftext|>"
PAD = "<|pad|>"
# Reserved for finetuning: with these entries a chat model needs no new rows in its embedding.
RESERVED_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", PAD, *(f"<|reserved_{n}|>" for n in range(11)))
SPECIAL_TOKENS = (SEPARATOR, *RESERVED_TOKENS)


def alphabet() -> list[str]:
    """The 256 characters that represent the byte values, in code-point order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def learn(texts: Iterable[str], vocab_size: int, entries: Sequence[str]) -> tokenizers.Tokenizer:
    """Trains a BPE of at most `vocab_size` entries: SPECIAL_TOKENS, `entries`, the 256 bytes, learned merges."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *entries],
        initial_alphabet=alphabet(),
        show_progress=False,
    )
    trained = reader(models.BPE())
    trained.train_from_iterator(texts, trainer)
    # A new tokenizer around the learned model: in the trained one all `entries` are special tokens.
    return reader(trained.model)


def reader(model: models.BPE) -> tokenizers.Tokenizer:
    """A tokenizer with the vocabulary of `model` that splits text into words and bytes, and decodes, as GPT-2 does."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend
