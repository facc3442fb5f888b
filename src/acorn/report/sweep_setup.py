"""The sweep report's setup: which settings were varied, and which were the same in every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from acorn.config import Config
from acorn.config_files import flatten
from acorn.report.formats import figure, short
from acorn.report.markup import absent, escaped, fact_list
from acorn.report.run_facts import RunFacts
from acorn.report.settings import setting_name
from acorn.report.sweep_figures import SweepRun, shown

TOLD_ABOVE = ("name", "data.source", "data.shards", "train.steps", "train.minutes")
"""Settings that have a line of their own, so that they are left out of the list of the others."""


def setup_section(runs: Sequence[SweepRun], facts: Mapping[str, RunFacts]) -> str:
    """The section.

    Args:
        facts: name of a run -> what its folder tells; without the runs that have not begun.
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
    """Values one after another; where they hold commas themselves, set apart by semicolons."""
    return ("; " if any("," in value for value in values) else ", ").join(value or '""' for value in values)


def _common(runs: Sequence[SweepRun], key: str) -> Any:
    """The value that a setting was given in all runs; None where it differs, or is not known."""
    values = [run.given.get(key) for run in runs]
    return values[0] if all(value == values[0] for value in values) else None


def _text(runs: Sequence[SweepRun], begun: Sequence[RunFacts]) -> str:
    """Where the text came from, and how much there is."""
    shards = _common(runs, "data.shards")
    parts = [shown(_common(runs, "data.source") or "") or (f"the shards in {shards}" if shards else "")]
    for split, name in (("train", "training"), ("valid", "validation")):
        if tokens := _range(one.counted(split, "tokens") for one in begun):
            parts.append(f"{tokens} {name} tokens")
    return ", ".join(part for part in parts if part)


def _length(runs: Sequence[SweepRun], begun: Sequence[RunFacts]) -> str:
    """Steps or minutes of each run, where they are the same, and the tokens that the finished ones went through."""
    steps, minutes = _common(runs, "train.steps"), _common(runs, "train.minutes")
    length = f"{steps:,} steps" if steps else f"{minutes:g} minutes of training" if minutes else ""
    seen = _range((one.last.get("tokens") for one in begun if one.finished), shorten=True)
    return ", ".join(part for part in (length, f"{seen} tokens seen" if seen else "") if part)


def _range(values: Iterable[Any], *, shorten: bool = False) -> str:
    """`2,048`, or `2,048 to 4,096` where they differ; empty without any."""
    known = [value for value in values if isinstance(value, int)]
    ends = dict.fromkeys([min(known), max(known)]) if known else {}
    return " to ".join(dict.fromkeys(short(end) if shorten else f"{end:,}" for end in ends))


def _held(runs: Sequence[SweepRun]) -> dict[str, Any]:
    """Key -> value of the settings that all runs share, that are not the defaults, and that no other line tells."""
    defaults = flatten(Config())
    return {
        key: value
        for key, value in runs[0].given.items()
        if key not in TOLD_ABOVE
        and key not in runs[0].settings
        and value != defaults.get(key)
        and all(run.given.get(key) == value for run in runs)
    }
