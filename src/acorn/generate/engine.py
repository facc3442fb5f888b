"""Continues prompts: reads each (prefill), then adds one token at a time to several of them together (decoding).

Whenever a text ends, the next prompt takes its place. Each prompt has its own random numbers, so a prompt gets the same
text alone and beside others: exactly, where decoding runs in acorn's C code; elsewhere up to rounding, because matmuls
of another size round differently, and where two tokens are almost equally likely, another one may be chosen.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from acorn.errors import InputError, UsageError, shown
from acorn.generate.sampling import generator_for, next_token
from acorn.generate.settings import SamplingSettings
from acorn.generate.stepper import Stepper
from acorn.generate.streaming import TextStream
from acorn.model.gpt import GPT
from acorn.progress import QUIET
from acorn.tokenizer.measuring import unspelled_tokens
from acorn.tokenizer.tokenizer import Tokenizer

FinishReason = Literal["eos", "stop", "length"]
DECODERS = ("auto", "torch", "native")

KEPT_SHARE = 0.75
"""Share of a full context that is kept. A larger share means more frequent prefills, a smaller one forgets more."""


@dataclass(frozen=True)
class Generation:
    """The result for one prompt; the fields of `acorn generate --json`.

    Attributes:
        prompt: the prompt as given.
        text: prompt_ids and new_ids, decoded without special tokens and cut before a stop string.
        completion: the new part of `text`.
        prompt_ids: ids given to the model: the whole prompt, or its end if it is longer than the context.
        new_ids: all sampled ids, including the final separator and the tokens of a stop string.
        finish_reason: `eos`: the document ended; `stop`: a stop string occurred; `length`: max_new_tokens was reached.
        prefill_seconds: time from when the prompt is first read to its first new token.
        decode_seconds: time from the first to the last new token.
        tokens_per_second: new tokens divided by the sum of both times.
        seed: reproduces the text, for the same prompt at the same position in the list.
    """

    prompt: str
    text: str
    completion: str
    prompt_ids: list[int]
    new_ids: list[int]
    finish_reason: FinishReason
    prefill_seconds: float
    decode_seconds: float
    tokens_per_second: float
    seed: int


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str | list[int]],
    settings: SamplingSettings,
    *,
    end_ids: Sequence[int] = (),
    trained_ids: Sequence[int] = (),
    batch_size: int = 16,
    strict: bool = False,
    decoder: str = "auto",
    int8: bool = False,
    on_text: Callable[[int, str], None] | None = None,
    note: Callable[[str], None] = QUIET.note,
    before_token: Callable[[], None] = lambda: None,
) -> list[Generation]:
    """Continues each prompt; an empty one starts a new document.

    The model computes on the device of its weights, in their precision or that of an enclosing autocast. It runs in
    eval mode and is then put back into its previous mode.

    Args:
        prompts: texts, or token ids that are used unchanged; a single text is the same as a list of one.
        end_ids: tokens that end a text, in addition to the separator.
        trained_ids: other reserved tokens that were trained, so that they may be sampled.
        batch_size: largest number of prompts that are continued together.
        strict: refuse a prompt that is longer than the context; otherwise only its end is used.
        decoder: implementation of decoding: `native` is compiled C for CPUs; `auto` uses it where it is available.
        int8: the model's matrices were rounded to int8 (`round_to_int8`): the native decoder stores them as int8, and
            the cache is in bf16.
        on_text: called with (index of the prompt, next piece of its completion) as soon as a piece is final. The
            joined pieces of a prompt are its completion.
        note: called with messages for the user: a prompt was cut or contains unknown tokens, the context was full, no
            C code is used.
        before_token: called before each token is sampled; an exception from it ends generation.

    Raises:
        UsageError: a prompt is neither text nor ids of the model's vocabulary, or is too long and `strict` is set; the
            native decoder is asked for and unavailable; the model has a label head.
        InputError: model and tokenizer do not belong together, or a prompt cannot be encoded.
        DamageError: the model's logits are not finite.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise InputError(
            f"The tokenizer has {tokenizer.vocab_size:,} entries, but the model only {model.config.vocab_size:,}.",
            where="the model's tokenizer",
            fix="use the tokenizer that the model was trained with",
        )
    if model.head is None:
        raise UsageError(
            "The model gives labels or values; it does not generate text.",
            where="the model",
            fix="name a language model, such as the one that this model was finetuned from",
        )
    check_decoder(decoder)
    prompts = _checked(prompts, model.config.vocab_size)
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    sequences = []
    for index, prompt in enumerate(prompts):
        try:
            ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt
            ids = ids or [tokenizer.separator_id]
        except InputError as error:
            raise InputError(error.what, where=f"prompt {index + 1}", fix=error.fix) from None
        ids = _fit(ids, index, model, strict, note)
        stream = TextStream(tokenizer, ids, settings.stop)
        prompt = prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
        sequences.append(_Sequence(index, prompt, ids, generator_for(seed, index), stream))
    _note_unspelled(tokenizer, prompts, note)
    ends = frozenset({tokenizer.separator_id, *end_ids})
    unsampled = set(tokenizer.unsampled_ids({*ends, *trained_ids}))
    if settings.allow_unknown and tokenizer.unknown_id is not None:
        unsampled -= {tokenizer.unknown_id}
    banned = [*sorted(unsampled), *range(tokenizer.vocab_size, model.config.vocab_size)]  # padding rows of the head
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            longest = max((len(sequence.ids) for sequence in sequences), default=0) + settings.max_new_tokens
            size = min(batch_size, len(sequences))
            stepper = Stepper(model, size, longest, decoder=decoder, int8=int8, note=note)
            _Run(stepper, settings, ends, banned, on_text or (lambda index, piece: None), note, before_token).finish(
                sequences
            )
    finally:
        model.train(was_training)
    return [sequence.result(seed) for sequence in sequences]


def check_decoder(decoder: str) -> None:
    """Refuses unknown decoders; commands call this before they load a model.

    Raises:
        UsageError: the name is not one of DECODERS.
    """
    if decoder not in DECODERS:
        raise UsageError(f"Unknown decoder {decoder!r}.", where="--decoder", fix=f"choose one of {', '.join(DECODERS)}")


def _checked(prompts: object, vocab_size: int) -> list[str | list[int]]:
    """The prompts as a list; a single text becomes a list of one.

    Raises:
        UsageError: something is neither a text nor token ids of the vocabulary.
    """
    listed = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(listed, Iterable) or isinstance(listed, bytes | Mapping):
        raise UsageError(
            f"A prompt cannot be {shown(prompts)}.", where="prompts", fix="give a text, or a list of texts"
        )
    checked: list[str | list[int]] = []
    for number, prompt in enumerate(listed, start=1):
        if isinstance(prompt, str):
            checked.append(prompt)
        elif isinstance(prompt, list | tuple) and all(isinstance(id_, int) and 0 <= id_ < vocab_size for id_ in prompt):
            checked.append(list(prompt))
        else:
            raise UsageError(
                f"A prompt cannot be {shown(prompt)}.",
                where=f"prompt {number}",
                fix=f"give a text, or a list of token ids from 0 to {vocab_size - 1:,}",
            )
    return checked


def _fit(ids: list[int], index: int, model: GPT, strict: bool, note: Callable[[str], None]) -> list[int]:
    """The prompt, or its end if it is longer than the context."""
    most = model.config.block_size
    if len(ids) <= most:
        return ids
    too_long = f"Prompt {index + 1} has {len(ids):,} tokens, more than the model's context of {most:,}"
    if strict:
        fix = "shorten it, or omit --strict to use only its end"
        raise UsageError(f"{too_long}.", where=f"prompt {index + 1}", fix=fix)
    note(f"{too_long}: only its last {most:,} tokens are used.")
    return ids[-most:]


def _note_unspelled(tokenizer: Tokenizer, prompts: Sequence[str | list[int]], note: Callable[[str], None]) -> None:
    """Notes once how many tokens of the prompts are unknown tokens, whose text the model does not see."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if tokenizer.unknown is None or not texts:
        return
    encoded = tokenizer.encode_documents(texts)
    unspelled = sum(unspelled_tokens(tokenizer, text, ids) for text, ids in zip(texts, encoded, strict=True))
    if unspelled:
        of = "the prompt" if len(texts) == 1 else f"the {len(texts)} prompts"
        note(
            f"The vocabulary lacks a part of {of}: {unspelled:,} of {sum(map(len, encoded)):,} tokens are "
            f"{tokenizer.unknown}, and the model does not see the text that they replace."
        )


@dataclass
class _Sequence:
    """The state of one prompt. The model sees `ids[begin:]`."""

    index: int
    prompt: str
    prompt_ids: list[int]
    generator: torch.Generator
    stream: TextStream
    ids: list[int] = field(init=False)
    begin: int = 0
    slot: int = -1  # its place in the cache while it is active
    start: float = 0.0  # on the clock of perf_counter, when its prompt is first read
    finish_reason: FinishReason | None = None
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.ids = list(self.prompt_ids)

    @property
    def shown(self) -> list[int]:
        return self.ids[self.begin :]

    @property
    def n_new(self) -> int:
        return len(self.ids) - len(self.prompt_ids)

    def add(self, token: int, ends: frozenset[int], settings: SamplingSettings) -> str:
        """Appends a new token and ends the sequence if it is the last; returns the text that is now final."""
        self.ids.append(token)
        piece = self.stream.add(token)
        if token in ends and not settings.ignore_eos:
            self.finish_reason = "eos"
        elif self.n_new == settings.max_new_tokens:
            self.finish_reason = "length"
        if self.finish_reason:
            piece += self.stream.finish()
        if self.stream.stopped:
            self.finish_reason = "stop"
        return piece

    def result(self, seed: int) -> Generation:
        assert self.finish_reason is not None
        completion = self.stream.completion
        return Generation(
            prompt=self.prompt,
            text=self.stream.prompt_text + completion,
            completion=completion,
            prompt_ids=self.prompt_ids,
            new_ids=self.ids[len(self.prompt_ids) :],
            finish_reason=self.finish_reason,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            tokens_per_second=self.n_new / (self.prefill_seconds + self.decode_seconds),
            seed=seed,
        )


class _Run:
    """One call of `generate`."""

    def __init__(
        self,
        stepper: Stepper,
        settings: SamplingSettings,
        ends: frozenset[int],
        banned: Sequence[int],
        on_text: Callable[[int, str], None],
        note: Callable[[str], None],
        before_token: Callable[[], None],
    ) -> None:
        self.stepper, self.settings, self.ends = stepper, settings, ends
        self.on_text, self.note, self.before_token = on_text, note, before_token
        self.block_size = stepper.model.config.block_size
        self.banned = torch.tensor(banned, dtype=torch.long)
        self.has_slid = False

    def finish(self, sequences: Sequence[_Sequence]) -> None:
        """Generates until every sequence has ended."""
        waiting = deque(sequences)
        active: list[_Sequence] = []
        logits: list[Tensor] = []  # of the active sequences, each (V,)
        while waiting or active:
            while waiting and self.stepper.has_room:
                row = waiting.popleft()
                row.start = time.perf_counter()
                row.slot = self.stepper.join()
                active.append(row)
                logits.append(self.stepper.read(row.slot, row.shown))
            self.before_token()
            self._hand_out(active, self._sampled(active, logits))
            active = [row for row in active if not row.finish_reason]
            logits = self._next_logits(active)

    def _sampled(self, rows: Sequence[_Sequence], logits: Sequence[Tensor]) -> list[int]:
        generators = [row.generator for row in rows]
        tokens = next_token(
            torch.stack(list(logits)), [row.ids for row in rows], self.settings, generators, self.banned
        )
        return tokens.tolist()

    def _next_logits(self, rows: Sequence[_Sequence]) -> list[Tensor]:
        """Feeds the newest token of each sequence; where the context is full, the end of the sequence instead."""
        found: dict[int, Tensor] = {}
        for row in rows:
            if len(row.shown) > self.block_size:
                self._slide(row)
                found[row.slot] = self.stepper.read(row.slot, row.shown)
        steps = [row for row in rows if row.slot not in found]
        if steps:
            slots = [row.slot for row in steps]
            found |= zip(slots, self.stepper.step(slots, [row.ids[-1] for row in steps]), strict=True)
        return [found[row.slot] for row in rows]

    def _slide(self, row: _Sequence) -> None:
        """Moves the visible part of a row forward: the model has no positions beyond its context."""
        kept = max(1, int(KEPT_SHARE * self.block_size))
        row.begin = len(row.ids) - kept
        self.stepper.forget(row.slot)
        if not self.has_slid:
            self.note(
                f"The text is longer than the model's context of {self.block_size:,} tokens: whenever the context is "
                f"full, generation continues from the last {kept:,} tokens."
            )
        self.has_slid = True

    def _hand_out(self, rows: Sequence[_Sequence], tokens: Sequence[int]) -> None:
        """Gives each sequence its token, and the slots of those that end to others."""
        now = time.perf_counter()
        for row, token in zip(rows, tokens, strict=True):
            if not row.n_new:
                row.prefill_seconds = now - row.start
            row.decode_seconds = now - row.start - row.prefill_seconds
            piece = row.add(token, self.ends, self.settings)
            if row.finish_reason:
                self.stepper.leave(row.slot)
            if piece:
                self.on_text(row.index, piece)
