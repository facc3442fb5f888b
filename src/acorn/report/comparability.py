"""Decides which figures of several runs are comparable: those that were measured under equal conditions.

If texts or contexts differ, the difference between two figures says nothing about the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acorn.figure_names import altered_text
from acorn.report.formats import figure
from acorn.report.markup import mapping_in
from acorn.report.run_facts import RunFacts

DIGEST_DIGITS = 12

# Figure -> conditions that must be equal. A loss per token depends on how the tokenizer splits the text.
_TEXT = ("text", "part", "context", "stride", "cleaning", "normalization")
CONDITIONS_TO_MATCH = {
    "bits_per_byte": _TEXT,
    "loss_per_token": (*_TEXT, "tokenizer"),
    "word_perplexity": _TEXT,
}
LABELS = {
    "text": "text",
    "part": "scored part",
    "context": "context (tokens)",
    "stride": "stride (tokens)",
    "cleaning": "cleaning",
    "normalization": "normalization by the tokenizer",
    "tokenizer": "tokenizer",
    "precision": "precision",
    "weights": "weights",
}


@dataclass(frozen=True)
class Conditions:
    """How a run's figures of one split were measured.

    Attributes:
        identity: equal for runs whose split has the same text; None if unknown.
        values: key of `LABELS` -> the text shown; equal strings are equal conditions. `text` is compared by
            `identity`.
    """

    identity: str | None
    values: Mapping[str, str]


def conditions_of(runs: Sequence[RunFacts], split: str, *, in_curve: bool = False) -> list[Conditions]:
    """The conditions of each run's figures of `split`.

    Args:
        in_curve: of the validations during training, not of the finished model's evaluation.
    """
    identities = _identities(runs, split)
    return [
        Conditions(identity, {"text": _text(facts, split), **_how(facts, split, in_curve)})
        for identity, facts in zip(identities, runs, strict=True)
    ]


def differing(conditions: Sequence[Conditions], names: Sequence[str]) -> list[str]:
    """The `names` in which the conditions differ. Unknown conditions count as equal.

    If the texts differ, their scored parts are not compared.
    """
    found = [name for name in names if len(_distinct(conditions, name)) > 1]
    return [name for name in found if name != "part" or "text" not in found]


def scored_part(facts: RunFacts, split: str, *, in_curve: bool = False) -> tuple[int, int] | None:
    """How many tokens of `split` were scored, and how many could be scored; None if unknown.

    Args:
        in_curve: during training, not at its end.
    """
    tokens = facts.counted(split, "tokens")
    if tokens is None or tokens < 2:
        return None
    scored = mapping_in(facts.evaluation, split).get("tokens")
    if in_curve or not isinstance(scored, int):
        scored = mapping_in(facts.config, "train").get("eval_tokens") or tokens - 1
    return (min(scored, tokens - 1), tokens - 1) if isinstance(scored, int) else None


def scored_text(facts: RunFacts) -> str:
    """How the text of a run's figures differs from the original; see `figure_names.altered_text`."""
    lossless = next((figures["lossless"] for figures in facts.evaluation.values() if "lossless" in figures), None)
    kind = mapping_in(facts.shards, "tokenizer").get("kind")
    return altered_text(_cleaning(facts), lossless is not False if lossless is not None else kind in ("bpe", None))


def _distinct(conditions: Sequence[Conditions], name: str) -> set[str]:
    if name == "text":
        return {one.identity for one in conditions if one.identity is not None}
    return {one.values[name] for one in conditions if one.values.get(name)}


def _identities(runs: Sequence[RunFacts], split: str) -> list[str | None]:
    """A value for each run's text of `split`; equal values mean equal text.

    The first of these that all runs with the split have:

    - the digest of the text, if the runs have the same cleaning: it is the digest of the cleaned text;
    - the digests of the shards, if the runs also have the same tokenizer;
    - the counts of documents, bytes and words. If a run has no shards, the counts come from the evaluations.
    """
    entries = [mapping_in(mapping_in(facts.shards, "splits"), split) for facts in runs]
    clean = [_cleaning(facts) for facts in runs]
    tokenizers = [_fingerprint(facts) for facts in runs]
    ways: list[Callable[[int], Any]] = []
    if _all_equal(clean, entries):
        ways.append(lambda number: entries[number].get("text_sha256"))
        if _all_equal(tokenizers, entries):
            ways.append(lambda number: _shard_digests(runs[number], entries[number]))
    evaluations = [mapping_in(facts.evaluation, split) for facts in runs]
    known = entries
    if any(evaluation and not entry for entry, evaluation in zip(entries, evaluations, strict=True)):
        known, ways = evaluations, []
    ways.append(lambda number: [known[number].get(name) for name in ("documents", "bytes", "words")])
    for way in ways:
        found = [way(number) if known[number] else None for number in range(len(runs))]
        if all(value for value, entry in zip(found, known, strict=True) if entry):
            return [str(value) if value else None for value in found]
    return [None for _ in runs]


def _all_equal(values: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> bool:
    return len({value for value, entry in zip(values, entries, strict=True) if entry}) <= 1


def _shard_digests(facts: RunFacts, entry: Mapping[str, Any]) -> list[Any]:
    shards = entry.get("shards")
    names = [shard.get("file") for shard in shards if isinstance(shard, Mapping)] if isinstance(shards, list) else []
    files = mapping_in(facts.shards, "files")
    digests = [mapping_in(files, str(name)).get("sha256") for name in names]
    return digests if all(digests) else []


def _text(facts: RunFacts, split: str) -> str:
    """A short description of the text of a split, different for different texts."""
    entry = mapping_in(mapping_in(facts.shards, "splits"), split)
    parts = [f"{figure(entry[name])} {name}" for name in ("documents", "bytes") if name in entry]
    if digest := entry.get("text_sha256"):
        parts.append(f"SHA-256 {str(digest)[:DIGEST_DIGITS]}")
    return ", ".join(parts)


def _how(facts: RunFacts, split: str, in_curve: bool) -> dict[str, str]:
    evaluated = {} if in_curve else mapping_in(facts.evaluation, split)
    model = mapping_in(facts.config, "model")
    context = evaluated.get("context") or model.get("block_size")
    part = scored_part(facts, split, in_curve=in_curve)
    step = facts.weights_of_step if evaluated else facts.last.get("step")
    return {
        "part": "" if part is None else "all" if part[0] == part[1] else f"the first {part[0]:,} of {part[1]:,} tokens",
        "context": figure(context) if context else "",
        "stride": figure(evaluated.get("stride") or context) if context else "",
        "cleaning": _cleaning(facts),
        "normalization": _normalization(facts, evaluated),
        "tokenizer": _tokenizer(facts),
        "precision": str(evaluated.get("precision") or mapping_in(facts.config, "train").get("precision") or ""),
        "weights": f"step {figure(step)}" + ("" if evaluated else ", while training") if step is not None else "",
    }


def _cleaning(facts: RunFacts) -> str:
    clean = mapping_in(facts.shards, "text").get("clean") or mapping_in(facts.config, "data").get("clean")
    return str(clean or "")


def _normalization(facts: RunFacts, evaluated: Mapping[str, Any]) -> str:
    """`none` for a lossless tokenizer, else that of its kind."""
    kind = str(mapping_in(facts.shards, "tokenizer").get("kind") or "")
    lossless = evaluated.get("lossless")
    if lossless is None:
        lossless = kind == "bpe"
    return "none" if lossless else f"that of {kind}" if kind else ""


def _fingerprint(facts: RunFacts) -> str:
    return str(mapping_in(facts.shards, "tokenizer").get("fingerprint") or "")


def _tokenizer(facts: RunFacts) -> str:
    tokenizer = mapping_in(facts.shards, "tokenizer")
    if not tokenizer:
        return ""
    about = f"{tokenizer.get('kind', '')}, {figure(tokenizer.get('vocab_size'))} entries"
    return f"{about}, SHA-256 {_fingerprint(facts)[:DIGEST_DIGITS]}"
