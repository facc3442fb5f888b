"""The decoding loop: continues many texts together, each with settings of its own.

`acorn generate`, evaluation by generation and the server use it. A turn gives each text one token, and reads a chunk
of a prompt, so that nobody waits for a long prompt. Each text has its own random numbers, so a text is the same alone
and beside others: exactly, where decoding runs in acorn's C code (`Stepper`); elsewhere up to rounding.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from acorn.errors import AcornError
from acorn.generate.job import FinishReason, Job, TokenScore, Update
from acorn.generate.prefix_cache import PrefixCache
from acorn.generate.sampling import fault_of, generator_for, next_token
from acorn.generate.stepper import Stepper
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
        is_cancelled: asked before each step and chunk; true ends the text without a further update.

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
        self.cached_tokens = 0
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


class DecodingLoop:
    """Continues texts until they end. Use it in inference mode, with the model in eval mode.

    Args:
        ends: tokens that end a text.
        banned: ids that are never chosen.
        prefixes: where beginnings of prompts are kept; None: nowhere.
        chunks: chunks that a turn reads at most; None: prompts are read to their ends before the next step, which is
            faster where nobody waits for the texts in between.
        note: called with messages for the user.
    """

    def __init__(
        self,
        stepper: Stepper,
        ends: frozenset[int],
        banned: Sequence[int],
        *,
        prefixes: PrefixCache | None = None,
        chunks: int | None = None,
        note: Callable[[str], None] = QUIET.note,
    ) -> None:
        self.stepper, self.ends, self.prefixes, self.chunks, self.note = stepper, ends, prefixes, chunks, note
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
            text.cached_tokens = len(found) * self.prefixes.chunk
            for number, (keys, values) in enumerate(found):
                self.stepper.restore(text.slot, number * self.prefixes.chunk, keys, values)
        self._reading.append(text)

    def turn(self) -> list[tuple[Text, Update]]:
        """One step of the texts whose prompts are read, then chunks of prompts; returns what is new.

        An exception leaves the loop unusable. What concerns a single text is an update with an error.
        """
        logits = self._step()
        read = self._read()
        updates = [
            (text, self._with_prompt(text, Update(finish_reason="length"))) for text, _ in read if text.job.prompt_only
        ]
        for text, _ in updates:
            self.stepper.leave(text.slot)
        self._growing += [text for text, _ in read if not text.job.prompt_only]
        logits += [row for text, row in read if not text.job.prompt_only]
        return updates + (self._sample(torch.stack(logits)) if logits else [])

    def _step(self) -> list[Tensor]:
        """Feeds the newest token of each growing text; returns their next logits, each (V,)."""
        going, slid = [], []
        for text in self._growing:
            if text.is_cancelled():
                self.stepper.leave(text.slot)
            elif len(text.ids) - text.begin > self.block_size:
                self._slide(text)
                slid.append(text)
            else:
                going.append(text)
        self._reading.extendleft(reversed(slid))
        self._growing = going
        if not going:
            return []
        return list(self.stepper.step([text.slot for text in going], [text.ids[-1] for text in going]))

    def _slide(self, text: Text) -> None:
        """Moves the visible part of a text forward: the model has no positions beyond its context."""
        kept = max(1, int(KEPT_SHARE * self.block_size))
        text.begin = len(text.ids) - kept
        self.stepper.forget(text.slot)
        if not self._has_slid:
            self.note(
                f"The text is longer than the model's context of {self.block_size:,} tokens: whenever the context is "
                f"full, generation continues from the last {kept:,} tokens."
            )
        self._has_slid = True

    def _read(self) -> list[tuple[Text, Tensor]]:
        """Reads chunks of prompts, in turns; returns the texts that are now read, with their next logits (V,)."""
        read = []
        for _ in itertools.count() if self.chunks is None else range(self.chunks):
            while self._reading and self._reading[0].is_cancelled():
                self.stepper.leave(self._reading.popleft().slot)
            if not self._reading:
                break
            text = self._reading[0]
            begin, ids = self.stepper.tokens(text.slot), text.visible
            states = self.stepper.read_chunk(text.slot, ids)  # (T, C)
            end = begin + len(states)
            if text.job.score_prompt and not text.n_new:
                targets = ids[begin + 1 : end + 1]
                text.prompt_scores += token_scores(
                    self.stepper.logits(states[: len(targets)]), targets, text.job.alternatives or 0
                )
            if (
                self.prefixes
                and not text.begin
                and end - begin == self.prefixes.chunk
                and end % self.prefixes.chunk == 0
            ):
                self.prefixes.add(ids[:end], *self.stepper.stored(text.slot, begin, end))
            if end == len(ids):
                read.append((text, self.stepper.logits(states[-1])))
                self._reading.popleft()
            else:
                self._reading.rotate(-1)
        return read

    def _sample(self, logits: Tensor) -> list[tuple[Text, Update]]:
        """Chooses the next token of each growing text from `logits` (B, V)."""
        texts = self._growing
        rows = [text.job.settings for text in texts]
        chosen = next_token(
            _adjusted(logits, texts),
            [text.ids for text in texts],
            rows,
            [text.generator for text in texts],
            self.banned,
            self.stepper.sampler,
        ).tolist()
        scores = self._scores(texts, logits, chosen)
        updates = []
        for text, token, score in zip(texts, chosen, scores, strict=True):
            update = self._with_prompt(text, self._grown(text, token, score))
            if update.is_last:
                self.stepper.leave(text.slot)
            updates.append((text, update))
        self._growing = [text for text, update in updates if not update.is_last]
        return updates

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
