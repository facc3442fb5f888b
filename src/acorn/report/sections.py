"""The sections of the report that are words and tables: samples, evaluation, data, config, environment.

Each takes what `RunFacts` holds for it and gives HTML; what is not there gives one sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.config import Config, Section
from acorn.report.formats import figure
from acorn.report.markup import absent, escaped, fact_list, row_name, table, with_code, written

SAMPLE_STEPS = 6  # steps whose samples stand open, from the first to the last; the others are folded away
SUMMARY_KEYS = 4  # changed keys that a folded section of the config names

SPLITS = ("train", "valid", "test")
EVALUATION_ROWS = (
    ("bits_per_byte", "Bits per byte"),
    ("loss_per_token", "Loss, nats per token"),
    ("perplexity_per_token", "Perplexity per token"),
    ("word_perplexity", "Perplexity per word"),
    ("documents", "Documents"),
    ("tokens", "Tokens"),
    ("bytes", "Bytes"),
    ("words", "Words"),
    ("context", "Context, tokens"),
    ("stride", "Stride, tokens"),
    ("precision", "Precision"),
    ("lossless", "Lossless tokenizer"),
    ("round_trip_rate", "Texts that survive a round trip"),
    ("unknown_rate", "Unknown tokens"),
)


def samples_section(samples: Sequence[Mapping[str, Any]]) -> str:
    """Texts drawn while training, by step: a few steps from the first to the last, the others folded away."""
    if not samples:
        return absent("No text was drawn from the model while it trained; train.sample_every sets how often it is.")
    by_step: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_step.setdefault(sample["step"], []).append(sample)
    steps = sorted(by_step)
    chosen = {steps[round(n * (len(steps) - 1) / (SAMPLE_STEPS - 1))] for n in range(SAMPLE_STEPS)}
    shown = "".join(_sample(step, by_step[step]) for step in steps if step in chosen)
    others = [step for step in steps if step not in chosen]
    if not others:
        return shown
    folded = "".join(_sample(step, by_step[step]) for step in others)
    return f"{shown}<details><summary>Samples of the {len(others)} steps between</summary>{folded}</details>"


def evaluation_section(evaluation: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures of the finished model, a column a split."""
    if not evaluation:
        return absent("The finished model has not been evaluated yet.")
    by_split = _in_order(evaluation)
    splits = list(by_split.values())
    rows = [
        [label, *(written(name, split.get(name)) for split in splits)]
        for name, label in EVALUATION_ROWS
        if any(split.get(name) is not None for split in splits)
    ]
    notes = [split.get(name) for name in ("bits_per_byte_note", "word_perplexity_note") for split in splits]
    said = [f'<p class="soft">{escaped(str(note))}</p>' for note in dict.fromkeys(notes) if note]
    return table(["", *map(escaped, by_split)], rows) + "".join(said)


def data_section(shards: Mapping[str, Any]) -> str:
    """Counts of each split of the token shards, and facts of the tokenizer, from their manifest."""
    splits = _in_order({name: _split_facts(shards, name) for name in _table_in(shards, "splits")})
    if not splits:
        return absent("The manifest of the token shards is not in reach, so their counts are left out.")
    names = dict.fromkeys(name for facts in splits.values() for name in facts)
    rows = [[row_name(name), *(written(name, facts.get(name)) for facts in splits.values())] for name in names]
    rows.append(["Bytes per token", *(_bytes_per_token(facts) for facts in splits.values())])
    tokenizer = _table_in(shards, "tokenizer")
    about_tokenizer = f"<h3>Tokenizer</h3>{fact_list(tokenizer)}" if tokenizer else ""
    return table(["", *map(escaped, splits)], rows) + about_tokenizer


def config_section(config: Mapping[str, Mapping[str, Any]]) -> str:
    """Every setting by section, folded; what differs from the default is bold, and named while folded."""
    if not config:
        return absent("There is no config.toml that can be read.")
    folded = [_config_table(name, values) for name, values in config.items()]
    return f'<p class="soft">Bold: other than the default.</p>{"".join(folded)}'


def environment_section(environment: Mapping[str, Any]) -> str:
    """Versions, machine, command line: whatever environment.json holds."""
    return fact_list(environment) if environment else absent("There is no environment.json in the run folder.")


def _sample(step: int, samples: Sequence[Mapping[str, Any]]) -> str:
    texts = [f'<p class="text" dir="auto">{_with_prompt(str(s["prompt"]), str(s["text"]))}</p>' for s in samples]
    return f'<div class="sample"><div class="when">step <b>{step:,}</b></div><div>{"".join(texts)}</div></div>'


def _with_prompt(prompt: str, text: str) -> str:
    """The text with its prompt marked, unless the tokenizer changed the prompt's letters."""
    if not prompt or not text.startswith(prompt):
        return escaped(text)
    return f"<mark>{escaped(prompt)}</mark>{escaped(text.removeprefix(prompt))}"


def _split_facts(shards: Mapping[str, Any], split: str) -> dict[str, Any]:
    """What the manifest says of one split: its counts, what was dropped, how much of it stands in training too."""
    text = _table_in(shards, "text")
    facts = {**_table_in(_table_in(shards, "splits"), split), **_table_in(_table_in(text, "counts"), split)}
    facts |= _table_in(_table_in(shards, "tokenizer_report"), split)
    if split in (overlap := _table_in(text, "overlap")):
        facts["also_in_training_rate"] = overlap[split]
    return {name: value for name, value in facts.items() if not isinstance(value, Mapping | list)}


def _bytes_per_token(facts: Mapping[str, Any]) -> str:
    tokens, n_bytes = facts.get("tokens"), facts.get("bytes")
    both = isinstance(tokens, int | float) and isinstance(n_bytes, int | float)
    return f"{n_bytes / tokens:.3f}" if both and tokens and n_bytes else "—"


def _config_table(name: str, values: Mapping[str, Any]) -> str:
    defaults = getattr(Config(), name, None)
    fields = type(defaults).model_fields if isinstance(defaults, Section) else {}
    changed = [key for key, value in values.items() if key not in fields or value != _as_toml(getattr(defaults, key))]
    rows = []
    for key, value in values.items():
        bold = ' class="changed"' if key in changed else ""
        meaning = f"<span>{with_code(fields[key].description or '')}</span>" if key in fields else ""
        rows.append(f"<dt{bold}><code>{escaped(key)}</code></dt><dd{bold}>{escaped(figure(value))}{meaning}</dd>")
    named = [f"{key} {figure(values[key])}" for key in changed[:SUMMARY_KEYS]]
    if len(changed) > SUMMARY_KEYS:
        named.append(f"and {len(changed) - SUMMARY_KEYS} more")
    summary = escaped(", ".join(named) or "all as by default")
    return (
        f'<details><summary><b>{escaped(name)}</b><span class="soft">{summary}</span></summary>'
        f'<dl class="facts">{"".join(rows)}</dl></details>'
    )


def _as_toml(value: Any) -> Any:
    """A default as it reads in TOML, which has lists and no tuples."""
    return list(value) if isinstance(value, tuple) else value


def _in_order(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """JSON files are sorted by name; readers expect train, valid, test."""
    return {name: splits[name] for name in sorted(splits, key=lambda name: (*SPLITS, name).index(name))}


def _table_in(outer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = outer.get(name)
    return found if isinstance(found, Mapping) else {}
