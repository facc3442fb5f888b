"""Figures of predicted tags: the share of correct ones, and F1 of the entities that they mark.

Entities are counted as conlleval and seqeval count them: the type and both ends must be right. B- begins an entity; so
does I- after O, at the beginning of a sentence or after another type. E- ends an entity, and S- is an entity of one
token (IOBES).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from acorn.evaluate.predictions import nothing_to_score, some_of
from acorn.text.examples import Tagged

OUTSIDE = "O"
PREFIXES = frozenset("BIES")
UNTYPED = "_"
"""The type of entities whose tags are only a prefix."""


class Entity(NamedTuple):
    """A run of tokens with a type; `end` is the first token after it."""

    type: str
    start: int
    end: int


def tag_figures(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Figures of tagged sentences. An undefined figure is None, and a sentence in `notes` says why.

    Args:
        true, predicted: the tags of each sentence, one for each token.

    Returns:
        `task`, `examples` (sentences), `tokens`, `token_accuracy` (O included), `entity_precision`, `entity_recall`,
        `entity_f1` (over all entities), `per_entity` (type -> `precision`, `recall`, `f1`, `support`), `notes`. If
        the tags do not mark entities (such as parts of speech), the last four are None or empty.

    Raises:
        InputError: there is no token.
        ValueError: the numbers of sentences or tokens differ.
    """
    pairs = [pair for ours, theirs in zip(true, predicted, strict=True) for pair in zip(ours, theirs, strict=True)]
    if not pairs:
        raise nothing_to_score()
    figures: dict[str, Any] = {
        "task": "tag",
        "examples": len(true),
        "tokens": len(pairs),
        "token_accuracy": sum(a == b for a, b in pairs) / len(pairs),
    }
    others = sorted({tag for pair in pairs for tag in pair if not _marks_entities(tag)})
    if others:
        note = f"{some_of(others)} {'is no tag' if len(others) == 1 else 'are no tags'} of entities (O, B-TYPE, I-TYPE)"
        none = dict.fromkeys(("entity_precision", "entity_recall", "entity_f1"))
        return figures | none | {"per_entity": {}, "notes": [f"{note}: entity F1 is undefined."]}
    there, given, found = Counter[str](), Counter[str](), Counter[str]()
    for ours, theirs in zip(true, predicted, strict=True):
        expected, guessed = set(entities(ours)), set(entities(theirs))
        there.update(entity.type for entity in expected)
        given.update(entity.type for entity in guessed)
        found.update(entity.type for entity in expected & guessed)
    total = _scores(found.total(), there.total(), given.total())
    notes = []
    if not there:
        notes.append("No sentence has an entity: recall is undefined" + (", and F1." if not given else "."))
    if not given:
        notes.append("No entity was predicted: precision is undefined.")
    if unseen := sorted(set(given) - set(there)) if there else []:
        notes.append(f"No sentence has an entity of the type {some_of(unseen)}: recall is undefined.")
    if unused := sorted(set(there) - set(given)) if given else []:
        notes.append(f"No entity of the type {some_of(unused)} was predicted: precision is undefined.")
    return figures | {
        "entity_precision": total["precision"],
        "entity_recall": total["recall"],
        "entity_f1": total["f1"],
        "per_entity": {kind: _scores(found[kind], there[kind], given[kind]) for kind in sorted({*there, *given})},
        "notes": notes,
    }


def tag_baselines(training: Sequence[Tagged], scored: Sequence[Tagged]) -> dict[str, Any]:
    """Figures of the tags that need no sentence: of each word its most frequent tag in training, and of words that
    training does not have the most frequent tag of all. Of equally frequent tags it is the first.

    Returns:
        `word_majority` with `token_accuracy`, `entity_f1`, `entity_precision` and `entity_recall`, None where they are
        undefined.

    Raises:
        InputError: there is no token.
    """
    of_word: dict[str, Counter[str]] = {}
    of_all = Counter[str]()
    for sentence in training:
        of_all.update(sentence.tags)
        for word, tag in zip(sentence.tokens, sentence.tags, strict=True):
            of_word.setdefault(word, Counter()).update([tag])
    [(usual, _)] = of_all.most_common(1)
    best = {word: tags.most_common(1)[0][0] for word, tags in of_word.items()}
    guesses = [[best.get(word, usual) for word in sentence.tokens] for sentence in scored]
    figures = tag_figures([sentence.tags for sentence in scored], guesses)
    names = ("token_accuracy", "entity_f1", "entity_precision", "entity_recall")
    return {"word_majority": {name: figures[name] for name in names}}


def entities(tags: Iterable[str]) -> list[Entity]:
    """The entities of one sentence, in order."""
    found: list[Entity] = []
    start, kind, previous = 0, UNTYPED, OUTSIDE
    at = -1
    for at, tag in enumerate(tags):
        prefix, _, its = tag.partition("-")
        its = its or UNTYPED
        goes_on = prefix in ("I", "E") and previous in ("B", "I") and its == kind
        if previous != OUTSIDE and not goes_on:
            found.append(Entity(kind, start, at))
        if prefix != OUTSIDE and not goes_on:
            start, kind = at, its
        previous = prefix
    if previous != OUTSIDE:
        found.append(Entity(kind, start, at + 1))
    return found


def _marks_entities(tag: str) -> bool:
    prefix, dash, kind = tag.partition("-")
    return tag == OUTSIDE or (prefix in PREFIXES and (bool(kind) or not dash))


def _scores(found: int, there: int, given: int) -> dict[str, Any]:
    return {
        "precision": found / given if given else None,
        "recall": found / there if there else None,
        "f1": 2 * found / (there + given) if there or given else None,
        "support": there,
    }
