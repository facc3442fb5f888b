"""Decodes token ids to text piece by piece; a piece that was returned never changes."""

from __future__ import annotations

from collections.abc import Sequence

from acorn.tokenizer.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
"""Decoded from bytes that are not a complete character, including a character whose last bytes are still missing."""

WINDOW_TOKENS = 8
"""New tokens after which the decoded window moves forward; decoding all tokens each time would take O(n^2)."""


class TextStream:
    """The completion of one prompt as it grows.

    A token can change the text before it only by completing a character. Text that may still change is held back: a
    U+FFFD at the end (the next token may complete the character), a sequence of single-byte tokens (they are decoded
    together), and any beginning of a stop string.

    Args:
        prompt_ids: ids of the prompt.
        stop: the completion ends before the first of these strings.

    Attributes:
        prompt_text: the decoded prompt.
        completion: the text returned so far.
        stopped: a stop string was found; no more tokens may be added.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids = list(prompt_ids)
        # ids[:_settled] decode to the prompt and _settled_text. Only ids[_window:] are decoded again. The window begins
        # before _settled because the first token of a sequence decodes differently (without a space before it).
        self._window, self._settled = 0, len(self._ids)
        self._window_text = self.prompt_text = tokenizer.decode(self._ids)
        self._settled_text = ""
        self.completion = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Adds a token; returns the new text that is final."""
        self._ids.append(token)
        if self._tokenizer.is_byte(token):
            return ""
        text = self._text()
        piece = self._release(text.rstrip(REPLACEMENT), final=False)
        fresh = len(text) - len(self._settled_text)
        if len(self._ids) - self._settled >= WINDOW_TOKENS and fresh and not text.endswith(REPLACEMENT):
            self._settled_text = text
            self._window, self._settled = self._settled, len(self._ids)
            self._window_text = self._tokenizer.decode(self._ids[self._window :])
        return piece

    def finish(self) -> str:
        """The remaining text after the last token."""
        return "" if self.stopped else self._release(self._text(), final=True)

    def _text(self) -> str:
        """The decoded completion of all tokens so far."""
        window = self._tokenizer.decode(self._ids[self._window :])
        return self._settled_text + window[len(self._window_text) :]

    def _release(self, text: str, *, final: bool) -> str:
        begin = len(self.completion)
        fresh = text[begin:]
        found = [place for stop in self._stop if (place := fresh.find(stop)) >= 0]
        if found:
            self.stopped = True
            fresh = fresh[: min(found)]
        elif not final:
            fresh = fresh[: len(fresh) - self._held_back(fresh)]
        self.completion += fresh
        return fresh

    def _held_back(self, text: str) -> int:
        """Number of characters at the end of `text` that may be the beginning of a stop string."""
        lengths = (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)
