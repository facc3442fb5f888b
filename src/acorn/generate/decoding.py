"""The decoding loop: continues many texts together, each with settings of its own.

`acorn generate`, evaluation by generation and the server use it. A turn gives each text one token, and reads parts of
prompts, so that nobody waits for a long prompt. Each text has its own random numbers, so a text is the same alone
and beside others: exactly, where decoding runs in acorn's C code (`Stepper`); elsewhere up to rounding.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from acorn.errors import AcornError
from acorn.generate.job import FinishReason, Job, TokenScore, Update
from acorn.generate.prefix_cache import PrefixCache
from acorn.generate.sampling import fault_of, generator_for, next_token
from acorn.generate.stepper import LONGEST_PART, Feed, Stepper
from acorn.generate.streaming import TextStream
from acorn.progress import QUIET
from acorn.tokenizer.tokenizer import Tokenizer

KEPT_SHARE = 0.75
"""Share of a full context that is kept. A larger share means more frequent prefills, a smaller one forgets more."""

MOST_ALTERNATIVES = 20
"""Largest number of most likely tokens that are reported. As many are always computed: which of equally likely tokens
come first could depend on the number."""


class Text:
    """A text that grows. The model sees `ids[begin:]`.

    Args:
        is_cancelled: asked before each turn; true ends the text without a further update.

    Attributes:
        ids: of the prompt and the new tokens.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self.job, self.is_cancelled = job, is_cancelled
        self.ids = list(job.prompt_ids)
        self.stream = TextStream(tokenizer, job.prompt_ids, job.settings.stop)
        self.generator = generator_for(job.settings.seed or 0, job.index)
        self.begin = 0
        self.slot = -1  # its place in the stepper's cache
        self.prompt_scores: list[TokenScore] = []
        self.cached_tokens = self.stored = 0  # tokens that the prefix cache had, and has
        self.counts: Counter[int] = Counter()  # of new tokens, where a penalty needs them

    @property
    def visible(self) -> list[int]:
        """The tokens that the model sees."""
        return self.ids[self.begin :] if self.begin else self.ids

    @property
    def n_new(self) -> int:
        return len(self.ids) - len(self.job.prompt_ids)

    @property
    def has_penalty(self) -> bool:
        return self.job.frequency_penalty != 0 or self.job.presence_penalty != 0

    def add(self, token: int, ends: frozenset[int]) -> tuple[str, FinishReason | None]:
        """Appends a new token; returns the text that is now final, and why the text ends."""
        self.ids.append(token)
        if self.has_penalty:
            self.counts[token] += 1
        piece, reason = self.stream.add(token), None
        if token in ends and not self.job.settings.ignore_eos:
            reason = "eos"
        elif self.n_new == self.job.settings.max_new_tokens:
            reason = "length"
        if reason:
            piece += self.stream.finish()
        return piece, "stop" if self.stream.stopped else reason  # type: ignore[return-value]


class Part(NamedTuple):
    """Tokens `begin .. end - 1` of what the model sees of a text, which are to be read."""

    text: Text
    begin: int
    end: int

    @property
    def is_last(self) -> bool:
        return self.end == len(self.text.visible)

    @property
    def is_scored(self) -> bool:
        """Whether the prompt's tokens are to be scored. A text that was continued is only read again."""
        return self.text.job.score_prompt and not self.text.n_new

    @property
    def wanted(self) -> int:
        """Tokens whose logits are needed."""
        return self.end - self.begin if self.is_scored else int(self.is_last)


class DecodingLoop:
    """Continues texts until they end. Use it in inference mode, with the model in eval mode.

    Args:
        ends: tokens that end a text.
        banned: ids that are never chosen.
        prefixes: where beginnings of prompts are kept; None: nowhere.
        interleaved: prompts are read in parts beside the steps of other texts. Otherwise they are read to their ends
            before the next step, which is faster where nobody waits for the texts in between.
        note: called with messages for the user.
    """

    def __init__(
        self,
        stepper: Stepper,
        ends: frozenset[int],
        banned: Sequence[int],
        *,
        prefixes: PrefixCache | None = None,
        interleaved: bool = False,
        note: Callable[[str], None] = QUIET.note,
    ) -> None:
        self.stepper, self.ends, self.prefixes, self.interleaved, self.note = stepper, ends, prefixes, interleaved, note
        self.block_size = stepper.model.config.block_size
        self.banned = torch.tensor(banned, dtype=torch.long)
        # A text is in one of them until it has ended, so that each can be told if a turn fails.
        self._reading: deque[Text] = deque()
        self._growing: list[Text] = []  # each has a newest token that the model has not seen yet
        self._has_slid = False

    @property
    def has_room(self) -> bool:
        """Whether another text can be added."""
        return self.stepper.has_room

    @property
    def texts(self) -> list[Text]:
        """The texts that have not ended."""
        return [*self._reading, *self._growing]

    @property
    def n_texts(self) -> int:
        return len(self._reading) + len(self._growing)

    def add(self, text: Text) -> None:
        """Takes a text. Its prompt must fit the model's context."""
        text.slot = self.stepper.join()
        if self.prefixes and not text.job.score_prompt:
            found = self.prefixes.find(text.ids, self.stepper.whole_chunks(len(text.ids)))
            text.cached_tokens = text.stored = len(found) * self.prefixes.chunk
            for number, (keys, values) in enumerate(found):
                self.stepper.restore(text.slot, number * self.prefixes.chunk, keys, values)
        self._reading.append(text)

    def turn(self) -> list[tuple[Text, Update]]:
        """Gives each text whose prompt is read its next token, and reads parts of other prompts; returns what is new.

        An exception leaves the loop unusable. What concerns a single text is an update with an error.
        """
        self._drop_cancelled()
        self._slide()
        ready: list[tuple[Text, Tensor]] = []  # texts with their next logits (V,)
        if self.interleaved:
            room = self.stepper.part_size if self._growing else LONGEST_PART
            ready = self._feed(self._growing, self._next_parts(room))
        else:
            growing = self._growing.copy()
            while self._reading:
                ready += self._feed([], self._next_parts(LONGEST_PART))
            ready += self._feed(growing, [])
        updates = [
            (text, self._with_prompt(text, Update(finish_reason="length"))) for text, _ in ready if text.job.prompt_only
        ]
        ready = [(text, logits) for text, logits in ready if not text.job.prompt_only]
        if ready:
            updates += self._sample([text for text, _ in ready], torch.stack([logits for _, logits in ready]))
        for text, update in updates:
            if update.is_last:
                self._growing.remove(text)
                self._store(text)
                self.stepper.leave(text.slot)
        return updates

    def _drop_cancelled(self) -> None:
        for texts in (self._reading, self._growing):
            for text in [text for text in texts if text.is_cancelled()]:
                texts.remove(text)
                self.stepper.leave(text.slot)

    def _slide(self) -> None:
        """Moves the visible part of texts that fill the context: the model has no positions beyond it."""
        kept = max(1, int(KEPT_SHARE * self.block_size))
        for text in [text for text in self._growing if len(text.visible) > self.block_size]:
            text.begin = len(text.ids) - kept
            self.stepper.forget(text.slot)
            self._growing.remove(text)
            self._reading.appendleft(text)
            if not self._has_slid:
                self.note(
                    f"The text is longer than the model's context of {self.block_size:,} tokens: whenever the context "
                    f"is full, generation continues from the last {kept:,} tokens."
                )
            self._has_slid = True

    def _next_parts(self, room: int) -> list[Part]:
        """What is read next of the prompts at the head of the queue."""
        parts = []
        for text in self._reading:
            if room <= 0:
                break
            begin = self.stepper.tokens(text.slot)
            end = self.stepper.part_end(text.slot, len(text.visible), room)
            parts.append(Part(text, begin, end))
            room -= end - begin
        return parts

    def _feed(self, growing: Sequence[Text], parts: Sequence[Part]) -> list[tuple[Text, Tensor]]:
        """Feeds the newest token of each growing text, and parts of prompts, which are at the head of the queue.

        Returns:
            the texts whose prompts are read, with their next logits (V,).
        """
        if not growing and not parts:
            return []
        feeds = [Feed(text.slot, [text.ids[-1]]) for text in growing]
        feeds += [Feed(part.text.slot, part.text.visible[part.begin : part.end], part.wanted) for part in parts]
        found = self.stepper.feed(feeds)
        ready = [(text, logits[-1]) for text, logits in zip(growing, found, strict=False)]
        for part, logits in zip(parts, found[len(growing) :], strict=True):
            text = self._reading.popleft()
            if part.is_scored:
                targets = text.ids[part.begin + 1 : part.end + 1]
                text.prompt_scores += token_scores(logits[: len(targets)], targets, text.job.alternatives or 0)
            self._store(text)
            if part.is_last:
                self._growing.append(text)
                ready.append((text, logits[-1]))
            else:
                self._reading.append(text)
        return ready

    def _store(self, text: Text) -> None:
        """Keeps what is new of whole chunks of a text: in C all of it, in PyTorch what was read in whole chunks."""
        if self.prefixes is None or text.begin:
            return
        end = self.stepper.tokens(text.slot)
        if not self.stepper.reads_natively:
            end = min(end, self.stepper.whole_chunks(len(text.job.prompt_ids)))
        chunk = self.prefixes.chunk
        while text.stored + chunk <= end:
            stored = self.stepper.stored(text.slot, text.stored, text.stored + chunk)
            text.stored += chunk
            self.prefixes.add(text.ids[: text.stored], *stored)

    def _sample(self, texts: Sequence[Text], logits: Tensor) -> list[tuple[Text, Update]]:
        """Chooses the next token of each text from `logits` (B, V)."""
        chosen = next_token(
            _adjusted(logits, texts),
            [text.ids for text in texts],
            [text.job.settings for text in texts],
            [text.generator for text in texts],
            self.banned,
            self.stepper.sampler,
        ).tolist()
        scores = self._scores(texts, logits, chosen)
        return [
            (text, self._with_prompt(text, self._grown(text, token, score)))
            for text, token, score in zip(texts, chosen, scores, strict=True)
        ]

    def _grown(self, text: Text, token: int, score: TokenScore | None) -> Update:
        if token < 0:
            return Update(error=fault_of(token, text.job.settings))
        try:
            piece, reason = text.add(token, self.ends)
        except AcornError as error:
            return Update(error=error)
        return Update(token, piece, score, finish_reason=reason)

    def _scores(self, texts: Sequence[Text], logits: Tensor, chosen: Sequence[int]) -> list[TokenScore | None]:
        """The scores of the chosen tokens, for the texts that ask for them."""
        asking = [row for row, text in enumerate(texts) if text.job.alternatives is not None and chosen[row] >= 0]
        scores: list[TokenScore | None] = [None] * len(texts)
        if asking:
            tops = [texts[row].job.alternatives or 0 for row in asking]
            for row, score in zip(
                asking, token_scores(logits[asking], [chosen[row] for row in asking], tops), strict=True
            ):
                scores[row] = score
        return scores

    def _with_prompt(self, text: Text, update: Update) -> Update:
        """The update with what is reported of the prompt, if it is the first one."""
        if text.n_new > 1 or (not text.prompt_scores and not text.cached_tokens):
            return update
        prompt_scores, text.prompt_scores = tuple(text.prompt_scores), []
        return Update(
            update.token,
            update.text,
            update.score,
            prompt_scores,
            text.cached_tokens,
            update.finish_reason,
            update.error,
        )


def token_scores(logits: Tensor, ids: Sequence[int], tops: int | Sequence[int]) -> list[TokenScore]:
    """How likely each of `ids` is by the logits (n, V) of its place, and the most likely ones there.

    Args:
        tops: number of the most likely ones, of each place or of all; at most MOST_ALTERNATIVES.
    """
    if not ids:
        return []
    logprobs = logits.float().cpu().log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    counts = [tops] * len(ids) if isinstance(tops, int) else tops
    if not any(counts):
        return [TokenScore(id_, logprob) for id_, logprob in zip(ids, own, strict=True)]
    best = logprobs.topk(min(MOST_ALTERNATIVES, logprobs.size(1)))
    return [
        TokenScore(id_, logprob, tuple(zip(top_ids[:count], values[:count], strict=True)))
        for id_, logprob, count, top_ids, values in zip(
            ids, own, counts, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


def _adjusted(logits: Tensor, texts: Sequence[Text]) -> Tensor:
    """Logits (B, V) after logit bias and the penalties on frequency and presence."""
    rows: list[int] = []
    ids: list[int] = []
    values: list[float] = []
    for row, text in enumerate(texts):
        job = text.job
        added = dict(job.logit_bias)
        for id_, count in text.counts.items():
            added[id_] = added.get(id_, 0.0) - job.frequency_penalty * count - job.presence_penalty
        rows += [row] * len(added)
        ids += added.keys()
        values += added.values()
    if not rows:
        return logits
    return logits.float().index_put(
        (torch.tensor(rows, device=logits.device), torch.tensor(ids, device=logits.device)),
        torch.tensor(values, device=logits.device),
        accumulate=True,
    )
