"""The setup section of a sweep report: the settings that vary, and those that are the same in every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from acorn.config import Config
from acorn.config_files import flatten
from acorn.counting import counted
from acorn.report.formats import figure, short
from acorn.report.markup import absent, escaped, fact_list
from acorn.report.run_facts import RunFacts
from acorn.report.settings import setting_name
from acorn.report.sweep_figures import SweepRun, shown

KEYS_SHOWN_ABOVE = ("name", "data.source", "data.shards", "train.steps", "train.minutes")
"""Settings with a line of their own. The list of the other settings leaves them out."""


def setup_section(runs: Sequence[SweepRun], facts: Mapping[str, RunFacts]) -> str:
    """The HTML of the section.

    Args:
        facts: name of a run -> facts from its folder; runs that have not started are missing.
    """
    begun = [facts[run.name] for run in runs if run.name in facts]
    varied = {key: list(dict.fromkeys(shown(run.settings[key]) for run in runs)) for key in runs[0].settings}
    about = {
        "config": runs[0].origin,
        "varied": [f"{key}: {_listed(values)}" for key, values in varied.items()],
        "text": _text(runs, begun),
        "length": _length(runs, begun),
        "parameters": _range(one.parameters for one in begun if one.parameters),
    }
    held = _held(runs)
    listed = "".join(f"<dt>{setting_name(key)}</dt><dd>{escaped(figure(value))}</dd>" for key, value in held.items())
    return (
        fact_list({name: value for name, value in about.items() if value})
        + "<h3>Settings of every run</h3>"
        + (
            '<p class="soft">Settings that all runs share and that differ from the defaults.</p>'
            f'<dl class="facts">{listed}</dl>'
            if listed
            else absent("All other settings have their default values.")
        )
    )


def _listed(values: Sequence[str]) -> str:
    """Values separated by commas, or by semicolons if they contain commas themselves."""
    return ("; " if any("," in value for value in values) else ", ").join(value or '""' for value in values)


def _common(runs: Sequence[SweepRun], key: str) -> Any:
    """The value of a setting in all runs; None if it differs or is unknown."""
    values = [run.given.get(key) for run in runs]
    return values[0] if all(value == values[0] for value in values) else None


def _text(runs: Sequence[SweepRun], begun: Sequence[RunFacts]) -> str:
    """The source of the text, and its size."""
    shards = _common(runs, "data.shards")
    parts = [shown(_common(runs, "data.source") or "") or (f"the shards in {shards}" if shards else "")]
    for split, name in (("train", "training"), ("valid", "validation")):
        if tokens := _range(one.counted(split, "tokens") for one in begun):
            parts.append(f"{tokens} {name} tokens")
    return ", ".join(part for part in parts if part)


def _length(runs: Sequence[SweepRun], begun: Sequence[RunFacts]) -> str:
    """Steps or minutes per run, if they are the same, and the tokens that finished runs were trained on."""
    steps, minutes = _common(runs, "train.steps"), _common(runs, "train.minutes")
    length = counted(steps, "step") if steps else f"{counted(minutes, 'minute')} of training" if minutes else ""
    seen = _range((one.last.get("tokens") for one in begun if one.finished), shorten=True)
    return ", ".join(part for part in (length, f"{seen} tokens seen" if seen else "") if part)


def _range(values: Iterable[Any], *, shorten: bool = False) -> str:
    """`2,048`, or `2,048 to 4,096` if they differ; empty without values."""
    known = [value for value in values if isinstance(value, int)]
    ends = dict.fromkeys([min(known), max(known)]) if known else {}
    return " to ".join(dict.fromkeys(short(end) if shorten else f"{end:,}" for end in ends))


def _held(runs: Sequence[SweepRun]) -> dict[str, Any]:
    """Key -> value of the settings that are equal in all runs, not the default, and not shown elsewhere."""
    defaults = flatten(Config())
    return {
        key: value
        for key, value in runs[0].given.items()
        if key not in KEYS_SHOWN_ABOVE
        and key not in runs[0].settings
        and value != defaults.get(key)
        and all(run.given.get(key) == value for run in runs)
    }
