"""The report's table of the token shards: what each split holds, and what was left out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acorn.report.formats import figure
from acorn.report.labels import DATA, TOKENIZER, label
from acorn.report.markup import absent, escaped, fact_list, in_order, mapping_in, table, written

HIDDEN = {"bytes_per_token", "unknown_rate", "unknown_tokens"}
"""The first is of a sample without separators, beside which the table's own would stand with another value; the others
are written together."""
DIGEST_DIGITS = 12


def data_section(shards: Mapping[str, Any]) -> str:
    """Counts of each split of the token shards, and facts of the tokenizer, from their manifest."""
    splits = in_order({name: _split_facts(shards, name) for name in mapping_in(shards, "splits")})
    if not splits:
        return absent("The manifest of the token shards is not in reach, so their counts are left out.")
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
    parts = [table(["", *map(escaped, splits)], rows)]
    if any(_count(facts, "unknown_tokens") for facts in columns):
        parts.append(
            '<p class="soft">Unknown tokens may stand in the text itself, as WikiText writes <code>&lt;unk&gt;</code> '
            "for a rare word. The row below them leaves those out.</p>"
        )
    if none:
        parts.append(f'<p class="soft">None in any split: {"; ".join(none)}.</p>')
    tokenizer = mapping_in(shards, "tokenizer")
    about_tokenizer = f"<h3>Tokenizer</h3>{fact_list(tokenizer, TOKENIZER)}" if tokenizer else ""
    return "".join(parts) + about_tokenizer


def _split_facts(shards: Mapping[str, Any], split: str) -> dict[str, Any]:
    """What the manifest says of one split: its counts, what was dropped, how much of it stands in training too."""
    text = mapping_in(shards, "text")
    facts = {**mapping_in(mapping_in(shards, "splits"), split), **mapping_in(mapping_in(text, "counts"), split)}
    facts |= mapping_in(mapping_in(shards, "tokenizer_report"), split)
    if split in (overlap := mapping_in(text, "overlap")):
        facts["also_in_training_rate"] = overlap[split]
    return {name: value for name, value in facts.items() if not isinstance(value, Mapping | list)}


def _cell(name: str, value: Any) -> str:
    return escaped(str(value)[:DIGEST_DIGITS]) if name == "text_sha256" and value else written(name, value)


def _unknown_rows(columns: list[dict[str, Any]]) -> list[list[str]]:
    """Unknown tokens, with their share; and the share of those for which the vocabulary is to blame."""
    rows = []
    if any(_count(facts, "unknown_tokens") for facts in columns):
        rows.append(["Unknown tokens", *map(_unknown_tokens, columns)])
    if any(facts.get("unknown_rate") is not None for facts in columns):
        cells = [written("unknown_rate", facts.get("unknown_rate")) for facts in columns]
        rows.append(["Tokens for text that the vocabulary cannot spell", *cells])
    return rows


def _unknown_tokens(facts: Mapping[str, Any]) -> str:
    unknown, tokens = _count(facts, "unknown_tokens"), _count(facts, "tokens")
    share = f" ({100 * unknown / tokens:.3g} %)" if unknown and tokens else ""
    return escaped(figure(facts.get("unknown_tokens")) + share)


def _bytes_per_token(facts: Mapping[str, Any]) -> str:
    tokens, n_bytes = _count(facts, "tokens"), _count(facts, "bytes")
    return f"{n_bytes / tokens:.3f}" if tokens and n_bytes else "—"


def _count(facts: Mapping[str, Any], name: str) -> float:
    """A number of the manifest; 0 where it is something else."""
    value = facts.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
