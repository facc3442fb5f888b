"""Runs that differ only in `train.seed`: they show how much of a difference between runs is due to chance."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from acorn.report.comparability import CONDITIONS_TO_MATCH, conditions_of, differing
from acorn.report.markup import mapping_in
from acorn.report.run_facts import RunFacts
from acorn.report.settings import spelled_out

SCORES = ("bits_per_byte", "loss_per_token", "word_perplexity")


@dataclass(frozen=True)
class Spread:
    """A figure over several runs.

    Attributes:
        deviation: sample standard deviation (n - 1 in the denominator), an estimate for further seeds.
        low, high: the smallest and the largest value.
        count: runs that have the figure, at least 2.
    """

    mean: float
    deviation: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs that differ only in their seed.

    Attributes:
        members: their indices in the list of runs, at least two.
        seeds: their `train.seed`, in the same order.
        spreads: (split, figure) -> its spread, if at least two of the runs have it.
    """

    members: tuple[int, ...]
    seeds: tuple[Any, ...]
    spreads: dict[tuple[str, str], Spread]


def seed_groups(runs: Sequence[RunFacts]) -> list[SeedGroup]:
    """Groups of two or more finished runs whose configs differ only in `train.seed`, measured on the same text.

    A run that was changed when resumed differs in more than its seed: it is left out if there are others.
    """
    by_config: dict[str, list[int]] = {}
    folders = [facts.folder.resolve() for facts in runs]
    for number, facts in enumerate(runs):
        if facts.finished and facts.config and folders.index(folders[number]) == number:  # count a repeated run once
            by_config.setdefault(_without_seed(facts), []).append(number)
    groups = [
        _group(runs, [number for number in members if runs[number].undisturbed] or members)
        for members in by_config.values()
    ]
    return [group for group in groups if len(set(map(str, group.seeds))) > 1]


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of two or more values."""
    return Spread(statistics.fmean(values), statistics.stdev(values), min(values), max(values), len(values))


def _group(runs: Sequence[RunFacts], members: Sequence[int]) -> SeedGroup:
    own = [runs[number] for number in members]
    seeds = tuple(mapping_in(facts.config, "train").get("seed") for facts in own)
    spreads = {}
    for split in ("valid", "test"):
        conditions = conditions_of(own, split)
        for name in SCORES:
            values = [mapping_in(facts.evaluation, split).get(name) for facts in own]
            known = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
            if len(known) > 1 and not differing(conditions, CONDITIONS_TO_MATCH[name]):
                spreads[split, name] = spread_of(known)
    return SeedGroup(tuple(members), seeds, spreads)


def _without_seed(facts: RunFacts) -> str:
    """All settings except the seed as one string, which is equal for runs that differ only in the seed."""
    settings = {key: value for key, value in spelled_out(facts.config).items() if key != "train.seed"}
    return repr(sorted(settings.items(), key=lambda item: item[0]))
