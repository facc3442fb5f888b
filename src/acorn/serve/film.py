"""One prompt under every checkpoint of a run, and two models on the same prompt and seed."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from acorn.checkpoint.load import LoadedModel
from acorn.generate.decoding import DecodingLoop, Text
from acorn.generate.job import Job
from acorn.generate.settings import SamplingSettings
from acorn.generate.stepper import Stepper
from acorn.runtime.device import Runtime
from acorn.serve.inspect import (
    Autocast,
    Score,
    Task,
    prompt_scores,
    scores_of,
    token_json,
    unsampled_ids,
)
from acorn.serve.token_text import TokenTexts

KEPT_FRAMES = 512
ALTERNATIVES = 5
"""Most likely tokens that a frame has of each token."""


class Frames:
    """The newest frames, so that a film is computed once.

    Their keys: run, checkpoint and its version, prompt, number of new tokens.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], dict[str, Any]] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> dict[str, Any] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def add(self, key: tuple[object, ...], frame: dict[str, Any]) -> None:
        self._kept[key] = frame
        if len(self._kept) > KEPT_FRAMES:
            self._kept.popitem(last=False)


def frame_of(loaded: LoadedModel, ids: Sequence[int], runtime: Runtime, new_tokens: int) -> Task[dict[str, Any]]:
    """What one checkpoint says of a prompt: the score of each token, and how it goes on if the most likely token is
    chosen each time."""
    model, autocast = loaded.model, runtime.autocast
    scores, _ = yield from prompt_scores(model, ids, ALTERNATIVES, autocast)
    added: list[Score] = []
    if new_tokens:
        settings = SamplingSettings(max_new_tokens=new_tokens, greedy=True)
        seen = ids[-model.config.block_size :]
        new = yield from continued(loaded, seen, settings, autocast)
        whole, _ = yield from scores_of(model, [*seen, *new], ALTERNATIVES, autocast)
        added = whole[len(seen) :]
    pieces = TokenTexts(loaded.tokenizer)
    return {
        "tokens": [token_json(score, pieces) for score in scores],
        "added": [token_json(score, pieces) for score in added],
    }


def continued(
    loaded: LoadedModel, ids: Sequence[int], settings: SamplingSettings, autocast: Autocast
) -> Task[list[int]]:
    """The tokens that continue `ids`, which fit in the context, until it is full: those of `acorn generate`.

    Raises:
        DamageError: the model's logits are not finite.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    room = model.config.block_size - len(ids) + 1  # the last token is not read again, so that it needs no position
    limited = dataclasses.replace(settings, max_new_tokens=min(settings.max_new_tokens, room))
    text = Text(Job(tuple(ids), limited), tokenizer)
    ends = frozenset({tokenizer.separator_id, *loaded.end_ids})
    with torch.inference_mode(), autocast():
        loop = DecodingLoop(Stepper(model, 1), ends, unsampled_ids(loaded))
        loop.add(text)
    while loop.n_texts:
        with torch.inference_mode(), autocast():  # not around `yield`: others compute in this thread in between
            for _, update in loop.turn():
                if update.error:
                    raise update.error
        yield
    return text.ids[len(ids) :]


def compared(
    left: LoadedModel, right: LoadedModel, prompt: str, settings: SamplingSettings, runtime: Runtime
) -> Task[dict[str, Any]]:
    """Both models on one prompt and seed. Where the tokenizers give equal ids, each token of both texts has the score
    of both models; otherwise the texts are beside each other only."""
    same = left.tokenizer.reads_like(right.tokenizer) and left.model.config.vocab_size == right.model.config.vocab_size
    sides = []
    for model, other in ((left, right), (right, left)):
        ids = model.tokenizer.encode_prompt(prompt) or [model.tokenizer.separator_id]
        seen = ids[-model.model.config.block_size :]
        new = yield from continued(model, seen, settings, runtime.autocast)
        text = [*ids, *new]
        own, _ = yield from scores_of(model.model, text, ALTERNATIVES, runtime.autocast)
        others: list[Score] = []
        if same:
            others, _ = yield from scores_of(other.model, text, 0, runtime.autocast)
        pieces = TokenTexts(model.tokenizer)
        tokens = [token_json(score, pieces) for score in own]
        for token, score in zip(tokens, others, strict=False):
            token["other"] = score.logprob
        sides.append({"tokens": tokens, "prompt_tokens": len(ids), "step": model.step})
    return {"same_tokenizer": same, "sides": sides}
