"""The sections of the report that are words and tables: samples, evaluation, config, environment.

Each takes what `RunFacts` holds for it and gives HTML; what is not there gives one sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.config import Config, Section
from acorn.report.formats import figure
from acorn.report.labels import ENVIRONMENT
from acorn.report.markup import absent, escaped, fact_list, in_order, table, with_code, written
from acorn.report.settings import OF_THE_MACHINE, spelled_out

SAMPLE_STEPS = 6  # steps whose samples stand open, from the first to the last; the others are folded away
SUMMARY_KEYS = 4  # changed keys that a folded section of the config names

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
    ("round_trip_rate", "Words that survive a round trip"),
    ("unknown_rate", "Tokens for text that the vocabulary cannot spell"),
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


EVALUATION_NOTES = {"bits_per_byte_note": "Bits per byte", "word_perplexity_note": "Perplexity per word"}


def evaluation_section(evaluation: Mapping[str, Mapping[str, Any]], weights_of_step: int | None = None) -> str:
    """Figures of the finished model, a column a split.

    Args:
        weights_of_step: the step whose weights they are of.
    """
    if not evaluation:
        return absent("The finished model has not been evaluated yet.")
    by_split = in_order(evaluation)
    splits = list(by_split.values())
    rows = [
        [label, *(written(name, split.get(name)) for split in splits)]
        for name, label in EVALUATION_ROWS
        if any(split.get(name) is not None for split in splits)
    ]
    said = [f"These are figures of the weights of step {weights_of_step:,}."] if weights_of_step is not None else []
    for name, about in EVALUATION_NOTES.items():
        notes = {split: figures.get(name) for split, figures in by_split.items() if figures.get(name)}
        for note in dict.fromkeys(map(str, notes.values())):
            its = [split for split, other in notes.items() if str(other) == note]
            of = "" if len(its) == len(by_split) else f" of {' and '.join(its)}"
            said.append(f"{about}{of}: {note.removesuffix('.')}.")
    paragraphs = [f'<p class="soft">{escaped(sentence)}</p>' for sentence in said]
    return table(["", *map(escaped, by_split)], rows) + "".join(paragraphs)


def config_section(config: Mapping[str, Mapping[str, Any]]) -> str:
    """Every setting by section, folded; what differs from the default is bold, and named while folded.

    What acorn may have chosen for the machine is not counted among what differs.
    """
    if not config:
        return absent("There is no config.toml that can be read.")
    folded = [_config_table(name, values) for name, values in config.items()]
    machine = ", ".join(f"<code>{key.rpartition('.')[2]}</code>" for key in sorted(OF_THE_MACHINE))
    return (
        '<p class="soft">Bold: other than the default. What was set for the machine, or chosen by acorn for it, is '
        f"never bold ({machine}), nor is the model's <code>vocab_size</code>, which is the tokenizer's.</p>"
        + "".join(folded)
    )


def environment_section(environment: Mapping[str, Any]) -> str:
    """Versions, machine, command line: whatever environment.json holds."""
    return (
        fact_list(environment, ENVIRONMENT)
        if environment
        else absent("There is no environment.json in the run folder.")
    )


def _sample(step: int, samples: Sequence[Mapping[str, Any]]) -> str:
    texts = [f'<p class="text" dir="auto">{_with_prompt(str(s["prompt"]), str(s["text"]))}</p>' for s in samples]
    return f'<div class="sample"><div class="when">step <b>{step:,}</b></div><div>{"".join(texts)}</div></div>'


def _with_prompt(prompt: str, text: str) -> str:
    """The text with its prompt marked, unless the tokenizer changed the prompt's letters."""
    if not prompt or not text.startswith(prompt):
        return escaped(text)
    return f"<mark>{escaped(prompt)}</mark>{escaped(text.removeprefix(prompt))}"


def _config_table(name: str, values: Mapping[str, Any]) -> str:
    defaults = getattr(Config(), name, None)
    fields = type(defaults).model_fields if isinstance(defaults, Section) else {}
    changed = [
        key
        for key, value in values.items()
        if f"{name}.{key}" not in (*OF_THE_MACHINE, "model.vocab_size")
        and (key not in fields or not _is_default(name, key, values, _as_toml(getattr(defaults, key))))
    ]
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


def _is_default(section: str, key: str, values: Mapping[str, Any], default: Any) -> bool:
    """Whether a value is the default, or another spelling of what the default comes to beside the other values."""
    if values[key] == default:
        return True
    own, other = (spelled_out({section: {**values, key: value}}) for value in (values[key], default))
    return bool(repr(own) == repr(other))


def _as_toml(value: Any) -> Any:
    """A default as it reads in TOML, which has lists and no tuples."""
    return list(value) if isinstance(value, tuple) else value
