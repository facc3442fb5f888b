"""The sections of the report that are words and tables: samples, evaluation, config.

Each takes what `RunFacts` holds for it and gives HTML; what is not there gives one sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from acorn.config import Config, Section
from acorn.counting import counted
from acorn.figure_names import FIGURES, SCORES, SPLITS, beside, in_a_sentence
from acorn.report.formats import figure
from acorn.report.markup import absent, escaped, in_order, noted, table, with_code, written
from acorn.report.settings import OF_THE_MACHINE, spelled_out

SAMPLE_STEPS = 6  # steps whose samples stand open, from the first to the last; the others are folded away
SUMMARY_KEYS = 4  # changed keys that a folded section of the config names


def samples_section(samples: Sequence[Mapping[str, Any]]) -> str:
    """Texts generated while training, by step: a few steps from the first to the last, the others folded away."""
    if not samples:
        return absent("No samples were generated during training; train.sample_every sets how often they are.")
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
    return f"{shown}<details><summary>Samples of {counted(len(others), 'step')} between</summary>{folded}</details>"


def evaluation_section(
    evaluation: Mapping[str, Mapping[str, Any]], weights_of_step: int | None = None, altered: str = ""
) -> str:
    """Figures of the finished model, one column per split.

    Args:
        weights_of_step: the step whose weights they are of.
        altered: which text they are of, where it is not the original; see `figure_names.altered_text`.
    """
    if not evaluation:
        return absent("The finished model has not been evaluated yet.")
    by_split = in_order(evaluation)
    splits = list(by_split.values())
    rows = [
        [
            noted(label, beside(altered) if name in SCORES else ""),
            *(written(name, split.get(name)) for split in splits),
        ]
        for name, label in FIGURES.items()
        if any(split.get(name) is not None for split in splits)
    ]
    said = [f"The figures are of the weights of step {weights_of_step:,}."] if weights_of_step is not None else []
    for name, about in SCORES.items():
        note_name = f"{name}_note"
        notes = {split: figures.get(note_name) for split, figures in by_split.items() if figures.get(note_name)}
        for note in dict.fromkeys(map(str, notes.values())):
            its = [in_a_sentence(SPLITS.get(split, split)) for split, other in notes.items() if str(other) == note]
            of = "" if len(its) == len(by_split) else f" of {' and '.join(its)}"
            said.append(f"{about}{of}: {note.removesuffix('.')}.")
    paragraphs = [f'<p class="soft">{escaped(sentence)}</p>' for sentence in said]
    return table(["", *(escaped(SPLITS.get(split, split)) for split in by_split)], rows) + "".join(paragraphs)


def config_section(config: Mapping[str, Mapping[str, Any]]) -> str:
    """Every setting by section, folded; those that differ from the default are bold, and named while folded.

    Settings that acorn may have chosen for the machine do not count as different.
    """
    if not config:
        return absent("There is no readable config.toml.")
    folded = [_config_table(name, values) for name, values in config.items()]
    machine = ", ".join(f"<code>{key.rpartition('.')[2]}</code>" for key in sorted(OF_THE_MACHINE))
    return (
        '<p class="soft">Bold: differs from the default. Never bold: settings that acorn may choose for the machine '
        f"({machine}), and the model's <code>vocab_size</code>, which comes from the tokenizer.</p>" + "".join(folded)
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
    summary = escaped(", ".join(named) or "all defaults")
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
