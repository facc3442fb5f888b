"""The text and the bytes that single tokens stand for, whatever kind of tokenizer made them."""

from __future__ import annotations

import re

from tokenizers import pre_tokenizers

from acorn.tokenizer.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
WORD_START, WORD_PART = "\u2581", "##"
"""SentencePiece's mark of a space; WordPiece's mark of a token that continues a word."""


class Pieces:
    """Token id -> its text and bytes.

    Byte-level tokenizers (GPT-2's kind) write each byte as a letter; a token may hold a part of a character, whose text
    alone is U+FFFD. Its bytes are exact. Other tokenizers normalize text, so the bytes are those of the token's text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        letters = _letters_of_bytes()
        is_byte_level = all(tokenizer.id_of(letter) is not None for letter in letters)
        self._bytes_of_letters = {letter: byte for byte, letter in enumerate(letters)} if is_byte_level else {}
        self._known: dict[int, bytes] = {}

    def bytes_of(self, token_id: int) -> bytes:
        if token_id not in self._known:
            self._known[token_id] = self._bytes(token_id)
        return self._known[token_id]

    def text_of(self, token_id: int) -> str:
        return self.bytes_of(token_id).decode("utf-8", "replace")

    def _bytes(self, token_id: int) -> bytes:
        entry = self._tokenizer.piece(token_id)
        if entry is None:
            return b""
        if entry in self._tokenizer.control_tokens or entry == self._tokenizer.unknown:
            return entry.encode()
        if self._bytes_of_letters:
            known = self._bytes_of_letters
            return b"".join(
                bytes([known[letter]]) if letter in known else letter.encode("utf-8", "replace") for letter in entry
            )
        if byte := _BYTE.fullmatch(entry):
            return bytes([int(byte[1], 16)])
        if self._tokenizer.kind == "wordpiece":
            return (entry.removeprefix(WORD_PART) if entry.startswith(WORD_PART) else f" {entry}").encode()
        return entry.replace(WORD_START, " ").encode("utf-8", "replace")


def _letters_of_bytes() -> list[str]:
    """The letter of each of the 256 bytes: printable bytes stand for themselves, the others follow from U+0100 on
    (Radford et al. 2019)."""
    others = iter(range(256, 512))
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    letters = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    return letters
