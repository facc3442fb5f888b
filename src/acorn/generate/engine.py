"""Continues prompts: reads each (prefill), then adds one token at a time to several of them together (decoding).

Whenever a text ends, the next prompt takes its place. The loop itself is in `decoding.py`.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from acorn.errors import InputError, UsageError, shown
from acorn.generate.decoding import DecodingLoop, Text
from acorn.generate.job import FinishReason, Job
from acorn.generate.settings import SamplingSettings
from acorn.generate.stepper import Stepper
from acorn.model.gpt import GPT
from acorn.progress import QUIET
from acorn.tokenizer.measuring import unspelled_tokens
from acorn.tokenizer.tokenizer import Tokenizer

DECODERS = ("auto", "torch", "native")


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
    settings = dataclasses.replace(settings, seed=seed)
    texts = []
    for index, prompt in enumerate(prompts):
        try:
            ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt
            ids = ids or [tokenizer.separator_id]
        except InputError as error:
            raise InputError(error.what, where=f"prompt {index + 1}", fix=error.fix) from None
        job = Job(tuple(_fit(ids, index, model, strict, note)), settings, index)
        texts.append(_Timed(index, prompt if isinstance(prompt, str) else tokenizer.decode(prompt), job, tokenizer))
    _note_unspelled(tokenizer, prompts, note)
    ends = frozenset({tokenizer.separator_id, *end_ids})
    banned = banned_ids(tokenizer, model, {*ends, *trained_ids}, allow_unknown=settings.allow_unknown)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            longest = max((len(text.ids) for text in texts), default=0) + settings.max_new_tokens
            size = min(batch_size, len(texts))
            stepper = Stepper(model, size, longest, decoder=decoder, int8=int8, note=note)
            loop = DecodingLoop(stepper, ends, banned, note=note)
            _finish(loop, texts, on_text or (lambda index, piece: None), before_token)
    finally:
        model.train(was_training)
    return [text.result(seed) for text in texts]


def banned_ids(tokenizer: Tokenizer, model: GPT, trained: Collection[int], *, allow_unknown: bool = False) -> list[int]:
    """Ids that are never chosen: control tokens that were not trained, the unknown token, padding of the vocabulary.

    Args:
        trained: control tokens that may be chosen.
        allow_unknown: the unknown token may be chosen, too.
    """
    unsampled = set(tokenizer.unsampled_ids(set(trained)))
    if allow_unknown and tokenizer.unknown_id is not None:
        unsampled -= {tokenizer.unknown_id}
    return [*sorted(unsampled), *range(tokenizer.vocab_size, model.config.vocab_size)]


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


class _Timed(Text):
    """A text of `generate`, and how long it takes."""

    def __init__(self, number: int, prompt: str, job: Job, tokenizer: Tokenizer) -> None:
        super().__init__(job, tokenizer)
        self.number, self.prompt = number, prompt
        self.start = self.first = self.last = 0.0  # when it is taken, and its first and last token; perf_counter
        self.finish_reason: FinishReason | None = None

    def result(self, seed: int) -> Generation:
        assert self.finish_reason is not None
        completion = self.stream.completion
        return Generation(
            prompt=self.prompt,
            text=self.stream.prompt_text + completion,
            completion=completion,
            prompt_ids=list(self.job.prompt_ids),
            new_ids=self.ids[len(self.job.prompt_ids) :],
            finish_reason=self.finish_reason,
            prefill_seconds=self.first - self.start,
            decode_seconds=self.last - self.first,
            tokens_per_second=self.n_new / (self.last - self.start),
            seed=seed,
        )


def _finish(
    loop: DecodingLoop,
    texts: Sequence[_Timed],
    on_text: Callable[[int, str], None],
    before_token: Callable[[], None],
) -> None:
    """Generates until every text has ended."""
    waiting = deque(texts)
    while waiting or loop.n_texts:
        while waiting and loop.has_room:
            waiting[0].start = time.perf_counter()
            loop.add(waiting.popleft())
        before_token()
        updates = loop.turn()
        now = time.perf_counter()
        for text, update in updates:
            assert isinstance(text, _Timed)
            if update.error:
                raise update.error
            text.first, text.last = text.first or now, now
            text.finish_reason = update.finish_reason
            if update.text:
                on_text(text.number, update.text)
