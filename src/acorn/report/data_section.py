"""The report's table of the token shards: what each split holds, and what was dropped from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acorn.figure_names import SPLITS
from acorn.report.formats import figure
from acorn.report.labels import DATA, TOKENIZER, label
from acorn.report.markup import absent, escaped, fact_list, in_order, mapping_in, table, written

HIDDEN = {"bytes_per_token", "unknown_rate", "unknown_tokens"}
"""The first is of a sample without separators, so its value differs from the table's own; the others have rows of their
own."""
IN_THE_TEXT = "of them in the text itself, such as WikiText's <unk>"
UNSPELLED = "of them for text that the vocabulary cannot spell"
DIGEST_DIGITS = 12


def data_section(shards: Mapping[str, Any]) -> str:
    """Counts of each split of the token shards, and facts of the tokenizer, from their manifest."""
    splits = in_order({name: _split_facts(shards, name) for name in mapping_in(shards, "splits")})
    if not splits:
        return absent("The manifest of the token shards was not found, so their counts are left out.")
    columns = list(splits.values())
    known = [name for name in DATA if any(name in facts for facts in columns)]
    others = [name for facts in columns for name in facts if name not in DATA and name not in HIDDEN]
    rows, none = [], []
    for name in dict.fromkeys([*known, *others]):
        values = [facts.get(name) for facts in columns]
        if name not in DATA or any(value not in (0, None) for value in values):
            rows.append([label(name, DATA), *(_cell(name, value) for value in values)])
        else:
            none.append(DATA[name][:1].lower() + DATA[name][1:])
        if name == "tokens":
            rows.append(["Bytes per token", *map(_bytes_per_token, columns)])
            rows += _unknown_rows(columns)
    if not any(_unknown_tokens(facts) for facts in columns) and any("unknown_tokens" in facts for facts in columns):
        none.insert(0, "unknown tokens")
    parts = [table(["", *(escaped(SPLITS.get(split, split)) for split in splits)], rows)]
    if none:
        parts.append(f'<p class="soft">Zero in every split: {"; ".join(none)}.</p>')
    tokenizer = mapping_in(shards, "tokenizer")
    about_tokenizer = f"<h3>Tokenizer</h3>{fact_list(_ordered(tokenizer), TOKENIZER)}" if tokenizer else ""
    return "".join(parts) + about_tokenizer


def _split_facts(shards: Mapping[str, Any], split: str) -> dict[str, Any]:
    """What the manifest says of one split: its counts, what was dropped, how much of it stands in training too."""
    text = mapping_in(shards, "text")
    facts = {**mapping_in(mapping_in(shards, "splits"), split), **mapping_in(mapping_in(text, "counts"), split)}
    facts |= mapping_in(mapping_in(shards, "tokenizer_report"), split)
    if split in (overlap := mapping_in(text, "overlap")):
        facts["also_in_training_rate"] = overlap[split]
    return {name: value for name, value in facts.items() if not isinstance(value, Mapping | list)}


def _ordered(tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the tokenizer in the order of their labels, those of another version last."""
    return {key: tokenizer[key] for key in (*TOKENIZER, *tokenizer) if key in tokenizer}


def _cell(name: str, value: Any) -> str:
    return escaped(str(value)[:DIGEST_DIGITS]) if name == "text_sha256" and value else written(name, value)


def _unknown_rows(columns: list[dict[str, Any]]) -> list[list[str]]:
    """Unknown tokens with their share, and why there are any: a rate of 0 beside many of them would puzzle."""
    if not any(_unknown_tokens(facts) for facts in columns):
        return []
    rows = [["Unknown tokens", *map(_with_share, columns)]]
    unspelled = [_unspelled(facts) for facts in columns]
    if any(number is not None for number in unspelled):
        in_text = [
            None if number is None else _unknown_tokens(facts) - number
            for number, facts in zip(unspelled, columns, strict=True)
        ]
        for name, values in ((IN_THE_TEXT, in_text), (UNSPELLED, unspelled)):
            rows.append([f'<span class="part">{escaped(name)}</span>', *(escaped(figure(value)) for value in values)])
    return rows


def _unknown_tokens(facts: Mapping[str, Any]) -> int:
    return int(_count(facts, "unknown_tokens"))


def _with_share(facts: Mapping[str, Any]) -> str:
    unknown, tokens = _unknown_tokens(facts), _count(facts, "tokens")
    share = f" ({100 * unknown / tokens:.3g} %)" if unknown and tokens else ""
    return escaped(figure(facts.get("unknown_tokens")) + share)


def _unspelled(facts: Mapping[str, Any]) -> int | None:
    """How many of a split's unknown tokens stand for text that the vocabulary cannot spell; None where not known.

    The manifest has their share of the tokens without separators, one of which precedes each document and one of which
    ends the split.
    """
    rate = facts.get("unknown_rate")
    if not isinstance(rate, int | float):
        return None
    text_tokens = _count(facts, "tokens") - _count(facts, "documents") - 1
    return min(_unknown_tokens(facts), round(rate * text_tokens))


def _bytes_per_token(facts: Mapping[str, Any]) -> str:
    tokens, n_bytes = _count(facts, "tokens"), _count(facts, "bytes")
    return f"{n_bytes / tokens:.3f}" if tokens and n_bytes else "—"


def _count(facts: Mapping[str, Any], name: str) -> float:
    """A number of the manifest; 0 where it is something else."""
    value = facts.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
