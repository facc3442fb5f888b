"""Loss, bits per byte and word perplexity of a model on a split or on any documents.

Every token except the first is predicted exactly once; the first is the separator before the first document. With a
stride shorter than the context, windows overlap and each one scores only tokens after the end of the previous window,
so that every prediction after the first window sees at least context - stride tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from acorn.data.prepare import document_batches
from acorn.data.token_shards import SplitCount, TokenShards
from acorn.errors import DamageError, InputError, UsageError
from acorn.evaluate.bits_per_byte import bits_per_byte_of
from acorn.evaluate.perplexity import exp_or_none, word_perplexity_of
from acorn.figure_names import NOT_COMPARABLE
from acorn.model.gpt import GPT
from acorn.model.loss import IGNORE
from acorn.progress import QUIET, Progress
from acorn.runtime.device import Runtime
from acorn.text.corpus import Document
from acorn.tokenizer.measuring import measure, unspelled_tokens
from acorn.tokenizer.tokenizer import Tokenizer

ROUND_TRIP_CHARACTERS = 1 << 20
"""Length of the beginning of a text on which the tokenizer's round trip is measured, in characters."""


class Tokens(Protocol):
    """A sequence of token ids: an array, or the tokens of a split."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a text; the fields of `acorn evaluate --json`.

    Attributes:
        loss_per_token: nats.
        perplexity_per_token: exp(loss_per_token); None if it overflows.
        bits_per_byte: bits of loss per byte of original text; None if the note says why it is not given.
        word_perplexity: exp(loss per word of the original text, where each end of line counts as a word); None if the
            note says why it is not given.
        tokens: number of predicted tokens, including separators.
        context: tokens per window.
        stride: tokens between the beginnings of consecutive windows.
        lossless: whether the tokenizer reproduces every text exactly.
        round_trip_rate: share of words that the tokenizer reproduces unchanged; None: not measured.
        unknown_rate: share of unknown tokens; None: not measured.
    """

    split: str
    loss_per_token: float
    perplexity_per_token: float | None
    bits_per_byte: float | None
    word_perplexity: float | None
    tokens: int
    bytes: int
    words: int
    documents: int
    context: int
    stride: int
    precision: str
    lossless: bool
    round_trip_rate: float | None
    unknown_rate: float | None
    bits_per_byte_note: str | None
    word_perplexity_note: str | None


def evaluate_split(
    model: GPT,
    tokenizer: Tokenizer,
    shards: TokenShards,
    split: str,
    runtime: Runtime,
    *,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    progress: Progress = QUIET,
) -> Evaluation:
    """Scores a split of prepared token shards.

    Args:
        context, stride: in tokens; None: the model's block_size for the context, and the context for the stride.
        batch_size: windows per batch.
        limit: score only the first `limit` tokens; None: all. Bytes, words and documents are then estimated as the same
            share of the split's counts, and `bits_per_byte_note` says so.

    Raises:
        UsageError: context or stride is out of range, or there is no such split.
        DamageError: the model's loss is not finite, or the shards contradict their manifest.
    """
    if split not in shards.splits:
        if split == "test":
            raise UsageError(
                "The run has no test text.",
                where=str(shards.folder),
                fix="name a text with --input FILE, or use --split valid (data.test_source gives a run its test text)",
            )
        raise UsageError(
            f"There is no split {split!r}.", where="--split", fix=f"choose one of {', '.join(shards.splits)}"
        )
    count = shards.count(split)
    if min(count.documents, count.bytes, count.words, count.tokens - 1) < 1:
        raise DamageError(
            f"According to the manifest, the split {split} contains nothing to score: {count}.",
            where=str(shards.folder),
            fix="make the shards again from the text",
        )
    report = _table(_table(shards.manifest, "tokenizer_report"), split)
    scoring = _Scoring(model, tokenizer, runtime, shards.clean, context, stride, batch_size, progress)
    rates = report.get("round_trip_rate"), shards.unknown_rate(split)
    return scoring.evaluate(split, shards.tokens(split), count, *rates, limit)


def _table(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside a manifest; empty if it is missing or not an object."""
    found = outer.get(name)
    return found if isinstance(found, Mapping) else {}


def evaluate_documents(
    model: GPT,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    runtime: Runtime,
    *,
    name: str = "input",
    clean: str = "none",
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
    progress: Progress = QUIET,
) -> Evaluation:
    """Scores documents that are not a split of a run; their tokens are in memory, 4 bytes each.

    Args:
        name: value of the field `split`.
        clean: how the documents were cleaned: a value of `data.clean`.
        context, stride: in tokens; None: the model's block_size for the context, and the context for the stride.
        batch_size: windows per batch.

    Raises:
        UsageError: context or stride is out of range.
        InputError: there is no document.
        DamageError: the model's loss is not finite.
    """
    scoring = _Scoring(model, tokenizer, runtime, clean, context, stride, batch_size, progress)
    tokens, count, unknown_rate, sample = _encode(tokenizer, documents)
    if not count.documents:
        raise InputError("There is no text to score (0 documents).", where=name, fix="name a file that contains text")
    return scoring.evaluate(name, tokens, count, measure(tokenizer, sample).round_trip_rate, unknown_rate)


def score(
    model: GPT,
    tokens: Tokens,
    *,
    context: int,
    stride: int | None = None,
    batch_size: int = 8,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    limit: int | None = None,
    progress: Progress = QUIET,
    task: str = "Scoring",
) -> tuple[float, int]:
    """The loss of every token except the first, each predicted once.

    Uses no random numbers and does not change the model.

    Args:
        context: tokens per window.
        stride: tokens between the beginnings of consecutive windows; None: the context.
        autocast: context manager for the model's forward.
        limit: score only the first `limit` tokens; None: all.
        task: the name of the task for `progress`.

    Returns:
        the loss summed over those tokens, in nats, and their number.

    Raises:
        UsageError: context or stride is out of range, or the model has a label head.
    """
    stride = context if stride is None else stride
    _check(model, context, stride)
    n_targets = max(0, len(tokens) - 1)
    if limit is not None:
        n_targets = min(n_targets, limit)
    device = next(model.parameters()).device
    total, done = 0.0, 0
    was_training = model.training
    model.eval()
    try:
        places = windows(n_targets, context, stride)
        while batch := list(itertools.islice(places, batch_size)):
            ids, targets = _read(tokens, batch)
            _check_ids(ids, targets, model)
            with torch.no_grad(), autocast():
                loss, _ = model(ids.to(device), targets.to(device))
            total += float(loss)  # summed in double precision
            done += sum(window.scored for window in batch)
            progress.at(task, done, n_targets, "tokens")
    finally:
        model.train(was_training)
    progress.end(task)
    return total, n_targets


@dataclass(frozen=True)
class Window:
    """Predicts the tokens begin + 1 to begin + length; the last `scored` of them count."""

    begin: int
    length: int
    scored: int


def windows(n_targets: int, context: int, stride: int) -> Iterator[Window]:
    """Windows that score each of `n_targets` tokens once; the last one may be shorter than `context`."""
    done = 0
    for begin in range(0, n_targets, stride):
        end = min(begin + context, n_targets)
        yield Window(begin, end - begin, end - done)
        done = end
        if end == n_targets:
            return


def _read(tokens: Tokens, batch: list[Window]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T). Shorter windows are padded on the right, which no scored token sees."""
    longest = max(window.length for window in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    targets = torch.full((len(batch), longest), IGNORE)
    for row, window in enumerate(batch):
        read = torch.from_numpy(tokens[window.begin : window.begin + window.length + 1].astype(np.int64))
        ids[row, : window.length] = read[:-1]
        targets[row, window.length - window.scored : window.length] = read[1:][window.length - window.scored :]
    return ids, targets


def _check_ids(ids: torch.Tensor, targets: torch.Tensor, model: GPT) -> None:
    """Refuses ids that are not in the vocabulary: checksums of shards do not exclude them."""
    largest = max(int(ids.max()), int(targets.max()))
    if largest >= model.config.vocab_size:
        raise DamageError(
            f"The text contains the token id {largest:,}, but the model has {model.config.vocab_size:,} entries.",
            where="the token shards",
            fix="make them again from the text, with the model's own tokenizer",
        )


def _check(model: GPT, context: int, stride: int) -> None:
    if model.head is None:
        raise UsageError(
            "The model gives labels or values; it does not predict text, which is what is scored here.",
            where="the model",
            fix="name a language model, such as the one that this model was finetuned from",
        )
    most = model.config.block_size
    if not 1 <= context <= most:
        raise UsageError(
            f"A context of {context:,} tokens does not fit the model.", where="context", fix=f"choose 1 to {most:,}"
        )
    if not 1 <= stride <= context:
        raise UsageError(
            f"A stride of {stride:,} tokens does not fit a context of {context:,}.",
            where="stride",
            fix=f"choose 1 to {context:,}; a longer stride would skip tokens",
        )


def _encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> tuple[Tokens, SplitCount, float, list[str]]:
    """Encodes documents as in token shards.

    Returns:
        ids, with a separator before each document and one after the last; counts; the share of unknown tokens in the
        documents; the first texts.
    """
    ids = array("I")
    n_documents = n_bytes = n_words = n_text_tokens = n_unspelled = 0
    sample: list[str] = []
    measured = 0
    for batch in document_batches(documents):
        for document, encoded in zip(batch, tokenizer.encode_documents([d.text for d in batch]), strict=True):
            ids.extend(tokenizer.document_start)
            ids.extend(encoded)
            n_documents += 1
            n_bytes += document.n_bytes
            n_words += document.n_words
            n_text_tokens += len(encoded)
            n_unspelled += unspelled_tokens(tokenizer, document.text, encoded)
            if measured < ROUND_TRIP_CHARACTERS:
                sample.append(document.text[: ROUND_TRIP_CHARACTERS - measured])
                measured += len(sample[-1])
    ids.append(tokenizer.separator_id)
    count = SplitCount(documents=n_documents, tokens=len(ids), bytes=n_bytes, words=n_words)
    return np.frombuffer(ids, dtype=np.uint32), count, n_unspelled / max(1, n_text_tokens), sample


@dataclass(frozen=True)
class _Scoring:
    """The settings and the model that score a text."""

    model: GPT
    tokenizer: Tokenizer
    runtime: Runtime
    clean: str
    context: int | None
    stride: int | None
    batch_size: int
    progress: Progress

    def evaluate(
        self,
        name: str,
        tokens: Tokens,
        count: SplitCount,
        round_trip_rate: float | None,
        unknown_rate: float | None,
        limit: int | None = None,
    ) -> Evaluation:
        context = self.model.config.block_size if self.context is None else self.context
        stride = context if self.stride is None else self.stride
        loss, n_tokens = score(
            self.model,
            tokens,
            context=context,
            stride=stride,
            batch_size=self.batch_size,
            autocast=self.runtime.autocast,
            limit=limit,
            progress=self.progress,
            task=f"Scoring {name}",
        )
        if not math.isfinite(loss):
            raise DamageError(
                f"The model's loss on {name} is not finite: {loss}.",
                where=f"precision {self.runtime.precision}",
                fix="use another checkpoint; with fp16, try --precision fp32",
            )
        changed = self._what_changed_the_text()
        notes = [f"scores the text after {changed}, per byte of the original: {NOT_COMPARABLE}"] if changed else []
        if n_tokens < len(tokens) - 1:
            notes.append(
                f"scores the first {n_tokens:,} of {len(tokens) - 1:,} tokens; bytes, words and documents are "
                "estimated as the same share of the whole split's"
            )
            count = _share_of(count, n_tokens / (len(tokens) - 1))
        bits_per_byte, bits_per_byte_note = bits_per_byte_of(loss, count.bytes, unknown_rate, notes)
        word_perplexity, word_perplexity_note = word_perplexity_of(loss, count.words, count.bytes, changed)
        return Evaluation(
            split=name,
            loss_per_token=loss / n_tokens,
            perplexity_per_token=exp_or_none(loss / n_tokens),
            bits_per_byte=bits_per_byte,
            word_perplexity=word_perplexity,
            tokens=n_tokens,
            bytes=count.bytes,
            words=count.words,
            documents=count.documents,
            context=context,
            stride=stride,
            precision=self.runtime.precision,
            lossless=self.tokenizer.lossless,
            round_trip_rate=round_trip_rate,
            unknown_rate=unknown_rate,
            bits_per_byte_note=bits_per_byte_note,
            word_perplexity_note=word_perplexity_note,
        )

    def _what_changed_the_text(self) -> str:
        """What changed the original text before tokenization; empty: nothing."""
        changes = []
        if self.clean != "none":
            changes.append(f"cleaning (data.clean={self.clean})")
        if not self.tokenizer.lossless:
            changes.append("the tokenizer's normalization")
        return " and ".join(changes)


def _share_of(count: SplitCount, share: float) -> SplitCount:
    """The counts of a share of a split, each at least 1."""
    return SplitCount(**{name: max(1, round(share * n)) for name, n in dataclasses.asdict(count).items()})
