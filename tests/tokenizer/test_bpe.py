from __future__ import annotations

from acorn.tokenizer import bpe


def test_the_alphabet_is_gpt2s_spelling_of_the_256_bytes() -> None:
    """Printable Latin-1 bytes represent themselves, the other 68 are the characters from U+0100 on."""
    itself = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    assert bpe.alphabet() == sorted([chr(b) for b in itself] + [chr(256 + n) for n in range(256 - len(itself))])


def test_the_vocabulary_reserves_tokens_for_chat() -> None:
    assert bpe.SPECIAL_TOKENS[:6] == ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")
    assert bpe.SPECIAL_TOKENS[6:] == tuple(f"<|reserved_{n}|>" for n in range(11))


def test_learns_the_textbook_merges() -> None:
    """The example of Sennrich et al. 2016. By hand: `er` occurs 9 times; then `lo` and `ow` 7 times each, and of
    equals the pair with the smaller ids comes first; then `low` 7 times."""
    words = ["low"] * 5 + ["lowest"] * 2 + ["newer"] * 6 + ["wider"] * 3
    backend = bpe.learn(words, 256 + len(bpe.SPECIAL_TOKENS) + 3, ())
    learned = sorted(backend.get_vocab().items(), key=lambda item: item[1])[-3:]
    assert [piece for piece, _ in learned] == ["er", "lo", "low"]
