"""How well a model predicts each token of a text, and what it expects next.

Everything here runs in the engine thread as a task: a generator that computes a part of some tens of milliseconds
between two `yield`s, so that the texts of other users go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from acorn.checkpoint.load import LoadedModel
from acorn.errors import DamageError
from acorn.evaluate.bits_per_byte import bits_per_byte_of
from acorn.evaluate.run_data import data_config_of
from acorn.evaluate.validation import windows
from acorn.figure_names import NOT_COMPARABLE
from acorn.generate.decoding import KEPT_SHARE
from acorn.generate.engine import banned_ids
from acorn.generate.stepper import chunk_tokens
from acorn.model.gpt import GPT
from acorn.model.kv_cache import KVCache
from acorn.runtime.device import Runtime, matmul_dtype
from acorn.serve.token_text import TokenTexts
from acorn.text.cleaning import clean
from acorn.tokenizer.measuring import unspelled_tokens

Result = TypeVar("Result")
Task = Generator[None, None, Result]
Autocast = Callable[[], AbstractContextManager[object]]

BIN_NATS = 0.1
"""Width of the bins that tokens outside of the listed ones are counted in, in nats."""


@dataclass(frozen=True)
class Score:
    """What the model said of one token before it saw it. Natural logarithms; None: it was the first one.

    Attributes:
        rank: 1 if no token was more likely.
        entropy: of the whole distribution, in nats.
        top: the most likely tokens with their log probabilities, the most likely first.
    """

    id: int
    logprob: float | None = None
    entropy: float | None = None
    rank: int | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Distribution:
    """What the model expects next.

    Attributes:
        top: the most likely tokens with their log probabilities.
        rest: (log of the mean probability, number of tokens) of the other tokens, in bins of similar probability, the
            most likely first, so that a page can apply a temperature to all of the distribution.
        unsampled: probability of tokens that are not sampled, such as the unknown token; they are in neither list.
    """

    top: tuple[tuple[int, float], ...]
    rest: tuple[tuple[float, int], ...]
    unsampled: float


def chunks_of(model: GPT, ids: Sequence[int], autocast: Autocast, cache: KVCache | None = None) -> Iterator[Tensor]:
    """Logits (T, V) in fp32 after each of `ids`, which fit in the context, chunk by chunk.

    Args:
        cache: keys and values of what is before `ids`; those of `ids` are added.
    """
    cache = cache or cache_for(model, len(ids))
    chunk = chunk_tokens(model)
    for begin in range(0, len(ids), chunk):
        with torch.inference_mode(), autocast():  # not around `yield`: others compute in this thread in between
            x = model.hidden(torch.tensor([ids[begin : begin + chunk]], device=model.device), cache)  # (1, T, C)
            logits = model.logits(x[0]).float().cpu()
        yield logits


def cache_for(model: GPT, tokens: int) -> KVCache:
    """A cache for one sequence of `tokens` tokens."""
    dtype = matmul_dtype(model.device.type, model.dtype)
    return KVCache(model.config, 1, min(tokens, model.config.block_size), model.device, dtype)


def scores_of(model: GPT, ids: Sequence[int], top: int, autocast: Autocast) -> Task[tuple[list[Score], Tensor]]:
    """The scores of `ids`, in the windows in which `acorn evaluate` scores a text by default, and the logits (V,) that
    predicted the last one."""
    block = model.config.block_size
    found, logits = [Score(ids[0])], torch.empty(0)
    for window in windows(len(ids) - 1, block, block):
        begin = window.begin
        for logits in chunks_of(model, ids[begin : begin + window.length], autocast):
            yield
            found += scores_from(logits, ids[begin + 1 : begin + 1 + len(logits)], top)
            begin += len(logits)
            yield
    return found, logits[-1]


def prompt_scores(model: GPT, ids: Sequence[int], top: int, autocast: Autocast) -> Task[tuple[list[Score], Tensor]]:
    """The scores of `ids`, and the logits (V,) of what follows them.

    If they are longer than the context, the model sees only their end before what follows, as in generation.
    """
    block, last = model.config.block_size, torch.empty(0)
    if len(ids) > block:
        found, _ = yield from scores_of(model, ids, top, autocast)
        for logits in chunks_of(model, ids[-max(1, int(KEPT_SHARE * block)) :], autocast):
            last = logits[-1]
            yield
        return found, last
    found = [Score(ids[0])]
    for logits in chunks_of(model, ids, autocast):
        yield
        targets = ids[len(found) : len(found) + len(logits)]
        found += scores_from(logits[: len(targets)], targets, top)
        yield
    return found, logits[-1]


def log_probabilities(logits: Tensor) -> Tensor:
    """The log-softmax of logits (..., V).

    Raises:
        DamageError: one is not finite.
    """
    found = logits.log_softmax(-1)
    if not bool(found.isfinite().all()):
        raise DamageError(
            "The model's log probabilities are not finite.",
            where="the model's weights, or its precision",
            fix="use another checkpoint; with fp16, try --precision fp32",
        )
    return found


def scores_from(logits: Tensor, targets: Sequence[int], top: int) -> list[Score]:
    """The scores of the tokens that follow, from logits (T, V).

    Raises:
        DamageError: a log probability is not finite.
    """
    logprobs = log_probabilities(logits)
    own = logprobs.gather(1, torch.tensor(targets)[:, None])  # (T, 1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    rank = (logprobs > own).sum(-1) + 1
    best = logprobs.topk(min(top, logprobs.size(-1)))
    columns = (own[:, 0], entropy, rank, best.indices, best.values)
    return [
        Score(token, value, spread, place, tuple(zip(ids, values, strict=True)))
        for token, value, spread, place, ids, values in zip(
            targets, *(column.tolist() for column in columns), strict=True
        )
    ]


def distribution_of(logits: Tensor, top: int, unsampled: Sequence[int]) -> Distribution:
    """The distribution after the last token, from its logits (V,)."""
    logprobs = log_probabilities(logits).double()
    left_out = torch.zeros(len(logprobs), dtype=torch.bool)
    left_out[list(unsampled)] = True
    share = float(logprobs[left_out].exp().sum())
    values, ids = logprobs.masked_fill(left_out, -math.inf).sort(descending=True)
    count = len(logprobs) - int(left_out.sum())
    listed = min(top, count)
    rest = values[listed:count]
    rest = rest[rest.isfinite()]
    bins, counts = torch.unique((rest / -BIN_NATS).floor(), return_counts=True)  # ascending: the most likely first
    sums = torch.zeros(len(bins), dtype=torch.float64).index_add(
        0, torch.arange(len(bins)).repeat_interleave(counts), rest.exp()
    )
    means = (sums / counts).clamp(min=1e-300).log()
    return Distribution(
        tuple(zip(ids[:listed].tolist(), values[:listed].tolist(), strict=True)),
        tuple(zip(means.tolist(), counts.tolist(), strict=True)),
        share,
    )


def unsampled_ids(loaded: LoadedModel) -> list[int]:
    """Ids that generation never chooses by default."""
    trained = {loaded.tokenizer.separator_id, *loaded.end_ids, *loaded.trained_ids}
    return banned_ids(loaded.tokenizer, loaded.model, trained)


def inspect_ids(loaded: LoadedModel, ids: Sequence[int], runtime: Runtime, *, top: int, next_top: int) -> Task[Any]:
    """Scores of a prompt's ids and what is expected next: the answer of /v1/inspect."""
    scores, logits = yield from prompt_scores(loaded.model, ids, top, runtime.autocast)
    following = distribution_of(logits, next_top, unsampled_ids(loaded))
    pieces = TokenTexts(loaded.tokenizer)
    return {
        "tokens": [token_json(score, pieces) for score in scores],
        "next": distribution_json(following, pieces),
        "bits_per_byte": None,
        "note": None,
    }


def inspect_document(loaded: LoadedModel, text: str, runtime: Runtime, *, top: int, next_top: int) -> Task[Any]:
    """The same of a text as one document, which begins and ends with a separator; with its bits per byte, as
    `acorn evaluate --input` gives them for a file of that one document."""
    tokenizer, how = loaded.tokenizer, data_config_of(loaded.folder).clean
    cleaned = clean(text, how)
    [encoded] = tokenizer.encode_documents([cleaned])
    ids = [*tokenizer.document_start, *encoded, tokenizer.separator_id]
    scores, logits = yield from scores_of(loaded.model, ids, top, runtime.autocast)
    following = distribution_of(logits, next_top, unsampled_ids(loaded))
    loss = -math.fsum(score.logprob for score in scores if score.logprob is not None)
    unknown_rate = unspelled_tokens(tokenizer, cleaned, encoded) / max(1, len(encoded))
    changes = [f"cleaning (data.clean={how})"] if how != "none" else []
    changes += [] if tokenizer.lossless else ["the tokenizer's normalization"]
    notes = [f"scores the text after {' and '.join(changes)}, per byte of the original: {NOT_COMPARABLE}"]
    n_bytes = len(text.encode())
    figure, note = bits_per_byte_of(loss, n_bytes, unknown_rate, notes if changes else [])
    pieces = TokenTexts(tokenizer)
    return {
        "tokens": [token_json(score, pieces) for score in scores],
        "next": distribution_json(following, pieces),
        "bits_per_byte": figure,
        "note": note,
        "bytes": n_bytes,
        "loss_per_token": loss / (len(ids) - 1),
    }


def token_json(score: Score, pieces: TokenTexts) -> dict[str, Any]:
    return {
        "id": score.id,
        "piece": pieces.text(score.id),
        "bytes": pieces.bytes(score.id).hex(),
        "logprob": score.logprob,
        "entropy": score.entropy,
        "rank": score.rank,
        "top": [[token, pieces.text(token), value] for token, value in score.top],
    }


def distribution_json(following: Distribution, pieces: TokenTexts) -> dict[str, Any]:
    return {
        "top": [[token, pieces.text(token), value] for token, value in following.top],
        "rest": [list(entry) for entry in following.rest],
        "unsampled": following.unsampled,
    }
