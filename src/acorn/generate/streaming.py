"""Token ids -> text, piece by piece, so that what was handed out never has to be taken back."""

from __future__ import annotations

from collections.abc import Sequence

from acorn.tokenizer.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"
"""What a decoder gives for bytes that are no whole character: those of one that is still coming, too."""

SETTLE = 32
"""Tokens after which the window that is decoded moves on; decoding everything at each token would cost n^2."""


class TextStream:
    """The completion of one prompt as it grows.

    Decoders join tokens to the left only: once a character is whole it stays. Held back is what may still change:
    a U+FFFD at the end (the next token may complete the character; if not, it is let out then), a row of tokens that
    are one byte each (they become characters all together, or none), and any beginning of a stop string.

    Args:
        prompt_ids: ids before the completion.
        stop: strings before the first of which the completion ends.

    Attributes:
        prompt_text: the prompt as it decodes.
        completion: what was let out so far.
        stopped: a stop string was met; the stream must not be added to any more.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids = list(prompt_ids)
        # ids[:_settled] decode to prompt and _settled_text. Only ids[_window:] are decoded again, where the text of
        # ids[_window:_settled] is known: the first token of all decodes in its own way (no space before it).
        self._window, self._settled = 0, len(self._ids)
        self._window_text = self.prompt_text = tokenizer.decode(self._ids)
        self._settled_text = ""
        self.completion = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain once `token` has come, beyond what was let out before."""
        self._ids.append(token)
        if self._tokenizer.is_byte(token):
            return ""
        text = self._text()
        piece = self._let_out(text.rstrip(REPLACEMENT), final=False)
        fresh = len(text) - len(self._settled_text)
        if len(self._ids) - self._settled >= SETTLE and fresh and not text.endswith(REPLACEMENT):
            self._settled_text = text
            self._window, self._settled = self._settled, len(self._ids)
            self._window_text = self._tokenizer.decode(self._ids[self._window :])
        return piece

    def finish(self) -> str:
        """What is left when no more tokens come."""
        return "" if self.stopped else self._let_out(self._text(), final=True)

    def _text(self) -> str:
        """The completion as all tokens so far decode."""
        window = self._tokenizer.decode(self._ids[self._window :])
        return self._settled_text + window[len(self._window_text) :]

    def _let_out(self, text: str, *, final: bool) -> str:
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
        """Characters at the end of `text` that may be the beginning of a stop string."""
        lengths = (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)
