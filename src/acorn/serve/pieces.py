"""The parts of an answer as they become final. A whole answer is its parts put together, so that both are equal."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from acorn.generate.job import FinishReason, Job, TokenScore, Update
from acorn.generate.streaming import TextStream
from acorn.serve.mailbox import Mailbox
from acorn.tokenizer.tokenizer import Tokenizer

REASONS: dict[FinishReason, str] = {"eos": "stop", "stop": "stop", "length": "length"}
"""acorn's reason for the end of a text -> that of the interface."""


class Placed(NamedTuple):
    """A token with its score.

    Attributes:
        score: None: the first token of a prompt, which nothing predicts.
        offset: characters before it: of the prompt for its tokens, of what was generated for the others.
    """

    token: int
    score: TokenScore | None
    offset: int
    is_prompt: bool = False


@dataclass
class Piece:
    """A part of the text with this index.

    Attributes:
        tokens: those whose text is in this part or in an earlier one; empty unless scores were asked for.
        ids: new tokens since the part before, which may include some whose text is held back.
        finish_reason: with the last part.
    """

    index: int
    text: str = ""
    tokens: list[Placed] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing that is worth an event; its ids can wait for the next part."""
        return not (self.text or self.tokens or self.finish_reason)


@dataclass
class Usage:
    """Numbers of tokens of a request."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def record(self) -> dict[str, object]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


class _Text:
    """One text as it grows.

    A token's score is given with its text: a token that only belongs to a stop string, or ends the text, has none.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer, echo: str | None) -> None:
        self._job, self._tokenizer = job, tokenizer
        self._echo = echo
        self._length = 0
        self._held: list[Placed] = []
        self._ids: list[int] = []
        self._stream = None if job.alternatives is None else TextStream(tokenizer, job.prompt_ids)

    def add(self, index: int, update: Update) -> Piece:
        piece = Piece(index)
        has_scores = bool(update.prompt_scores) or update.token is not None or update.is_last
        if self._echo is not None and (has_scores or not self._job.score_prompt):
            piece.text += self._echo
            if self._stream is not None:
                piece.tokens += placed_prompt(self._tokenizer, self._job.prompt_ids, update.prompt_scores)
            self._echo = None
        piece.text += update.text
        self._length += len(update.text)
        if update.score is not None and self._stream is not None:
            self._held.append(Placed(update.score.id, update.score, len(self._stream.completion)))
            self._stream.add(update.score.id)
        everything = update.finish_reason == "length"
        piece.tokens += [one for one in self._held if everything or one.offset < self._length]
        self._held = [one for one in self._held if not (everything or one.offset < self._length)]
        if update.finish_reason is not None:
            piece.finish_reason = REASONS[update.finish_reason]
        self._ids += [] if update.token is None else [update.token]
        if not piece.is_empty:
            piece.ids, self._ids = self._ids, []
        return piece


def placed_prompt(tokenizer: Tokenizer, ids: Sequence[int], scores: Sequence[TokenScore]) -> list[Placed]:
    """The tokens of a prompt with their scores, of which the first token has none."""
    stream = TextStream(tokenizer, [])
    placed = []
    for token, score in zip(ids, [None, *scores], strict=True):
        placed.append(Placed(token, score, len(stream.completion), True))
        stream.add(token)
    return placed


async def pieces(
    mailbox: Mailbox, jobs: Sequence[Job], tokenizer: Tokenizer, usage: Usage, n: int, echoes: Sequence[str | None]
) -> AsyncGenerator[Piece, None]:
    """The parts of all texts of a request, in the order in which they become final. Parts that say nothing are left
    out.

    Args:
        usage: counts the tokens.
        n: texts for each prompt: of the first one the tokens that the prefix cache had count.
        echoes: what the text of each job begins with; None: nothing.

    Raises:
        AcornError: a text ended because of it.
        ClientGoneError: the client closed the connection.
    """
    texts = [_Text(job, tokenizer, echo) for job, echo in zip(jobs, echoes, strict=True)]
    async for index, update in mailbox.updates():
        if update.error is not None:
            raise update.error
        usage.completion_tokens += update.token is not None
        if index % n == 0:
            usage.cached_tokens += update.cached_tokens
        piece = texts[index].add(index, update)
        if not piece.is_empty:
            yield piece


def joined(parts: Sequence[Piece], texts: int) -> list[Piece]:
    """The parts of each text put together, in the order of their indices."""
    whole = [Piece(index) for index in range(texts)]
    for part in parts:
        one = whole[part.index]
        one.text += part.text
        one.tokens += part.tokens
        one.ids += part.ids
        one.finish_reason = part.finish_reason or one.finish_reason
    return whole
