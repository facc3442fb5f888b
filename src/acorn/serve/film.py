"""One prompt under every checkpoint of a run, and two models on the same prompt and seed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from acorn.checkpoint.load import LoadedModel
from acorn.generate.sampling import generator_for, next_token
from acorn.generate.settings import SamplingSettings
from acorn.runtime.device import Runtime
from acorn.serve.inspect import (
    Autocast,
    Score,
    Task,
    cache_for,
    chunks_of,
    prompt_scores,
    scores_from,
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
    scores, _ = yield from prompt_scores(loaded.model, ids, ALTERNATIVES, runtime.autocast)
    settings = SamplingSettings(max_new_tokens=max(1, new_tokens), greedy=True, seed=0)
    added = yield from continued(loaded, ids, settings, runtime.autocast) if new_tokens else _nothing()
    pieces = TokenTexts(loaded.tokenizer)
    return {
        "tokens": [token_json(score, pieces) for score in scores],
        "added": [token_json(score, pieces) for score in added],
    }


def _nothing() -> Task[list[Score]]:
    return []
    yield


def continued(
    loaded: LoadedModel, ids: Sequence[int], settings: SamplingSettings, autocast: Autocast
) -> Task[list[Score]]:
    """The scores of the tokens that continue `ids`, until the context is full. The random numbers are those of
    `acorn generate`."""
    model, block = loaded.model, loaded.model.config.block_size
    ends = {loaded.tokenizer.separator_id, *loaded.end_ids}
    banned = torch.tensor(unsampled_ids(loaded), dtype=torch.long)
    cache = cache_for(model, block)
    text = list(ids[-block:])
    found: list[Score] = []
    generator = generator_for(settings.seed or 0, 0)
    fed: Sequence[int] = text
    while len(found) < settings.max_new_tokens and len(text) <= block:
        last = torch.empty(0)
        for logits in chunks_of(model, fed, autocast, cache):
            last = logits[-1:]  # (1, V)
            yield
        token = _chosen(last, text, settings, generator, banned)
        found += scores_from(last, [token], ALTERNATIVES)
        text.append(token)
        fed = [token]
        if token in ends and not settings.ignore_eos:
            break
    return found


def _chosen(
    logits: Tensor, seen: Sequence[int], settings: SamplingSettings, generator: torch.Generator, banned: Tensor
) -> int:
    return int(next_token(logits, [seen], settings, [generator], banned)[0])


def compared(
    left: LoadedModel, right: LoadedModel, prompt: str, settings: SamplingSettings, runtime: Runtime
) -> Task[dict[str, Any]]:
    """Both models on one prompt and seed. Where the tokenizers give equal ids, each token of both texts has the score
    of both models; otherwise the texts are beside each other only."""
    same = left.tokenizer.reads_like(right.tokenizer) and left.model.config.vocab_size == right.model.config.vocab_size
    sides = []
    for model, other in ((left, right), (right, left)):
        ids = model.tokenizer.encode_prompt(prompt) or [model.tokenizer.separator_id]
        added = yield from continued(model, ids, settings, runtime.autocast)
        text = [*ids, *(score.id for score in added)]
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
