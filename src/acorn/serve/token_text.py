"""What single tokens stand for: their text, and their bytes, also where a token is a part of a character."""

from __future__ import annotations

from tokenizers import pre_tokenizers

from acorn.generate.streaming import REPLACEMENT
from acorn.tokenizer.tokenizer import Tokenizer


def _byte_of() -> dict[str, int]:
    """The character that stands for a byte in the vocabulary of a byte-level BPE -> the byte.

    Bytes that are printable characters of Latin-1 stand for themselves; the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    found = {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
    assert set(found) == set(pre_tokenizers.ByteLevel.alphabet())
    return found


BYTE_OF = _byte_of()


class TokenTexts:
    """The texts and bytes of the tokens of a vocabulary.

    Some decoders drop a space at the beginning, so that a token is decoded after another one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._anchor = next(iter(tokenizer.encode_documents("a")[0]), tokenizer.separator_id)
        self._before = len(tokenizer.decode([self._anchor], skip_special_tokens=False))
        self._is_byte_level = tokenizer.lossless

    def text(self, token: int) -> str:
        """The text of a token after other text; parts of a character become U+FFFD."""
        return self.bytes(token).decode("utf-8", errors="replace")

    def bytes(self, token: int) -> bytes:
        """The bytes that the token adds to a text; those of its name, for a control token."""
        piece = self.tokenizer.piece(token)
        if piece is None:
            return b""
        if token in self.tokenizer.control_ids:
            return piece.encode()
        if self.tokenizer.is_byte(token):  # <0xE2>
            return bytes([int(piece[3:5], 16)])
        if self._is_byte_level and all(character in BYTE_OF for character in piece):
            return bytes(BYTE_OF[character] for character in piece)
        text = self.tokenizer.decode([self._anchor, token], skip_special_tokens=False)
        return text[self._before :].encode("utf-8", errors="replace")

    def name(self, token: int) -> str:
        """The text of a token, different for each token that is a part of a character: `bytes:\\xe2\\x80`."""
        text = self.text(token)
        if REPLACEMENT not in text:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.bytes(token))
