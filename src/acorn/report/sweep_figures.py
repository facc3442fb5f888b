"""The results of a sweep: mean and spread over seeds for each setting, and which setting is best, if any.

Settings are compared by bits per byte of the validation text, which is comparable across tokenizers; losses are not.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from acorn.figure_names import altered_text, beside

SEED_KEY = "train.seed"
RANKED_FIGURE = "bits_per_byte"
TEXT_COUNTS = ("documents", "bytes", "words")
"""Counts of an evaluation that are equal if the same part of the same text was scored."""

LEFT_OUT_HEAD = "left out"
"""Head of the last column of the table of settings, shown if some runs are left out of a mean."""

SCORE_HEADS = ("bits per byte", "loss")
"""Heads of the columns with scores in that table."""

NOT_FINITE_NOTE = "the loss of the final model is not a finite number"

MIN_SEEDS = 3
"""With fewer, a standard deviation says little: that of two runs is below a third of the true one a quarter of the
time."""

NONE_DONE_NOTE = "No run is done yet, so there is nothing to compare."

STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Two-sided 95 % quantiles of Student's t distribution for 1, 2, ... degrees of freedom; above these, 2.0 is used."""


@dataclass(frozen=True)
class SweepRun:
    """The state of one run of a sweep.

    Attributes:
        settings: the settings that the sweep varies -> this run's values.
        exit_code, error: of a run that diverged or failed.
        step: the last step of a run that is done.
        evaluation: split -> figures of the finished model, as in evaluation.json.
        text: the digest of the validation text; empty if unknown.
        clean: the cleaning of that text (`data.clean`); empty if unknown.
        undisturbed: whether the run is equal to an uninterrupted one. It is not if its length, another setting or the
            machine was changed when it was resumed.
        origin: the preset or file that the sweep's configs come from; empty if unknown.
        given: dotted key -> value of all settings, before acorn makes the choices that they leave open.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    status: Literal["done", "diverged", "failed", "unfinished"]
    exit_code: int | None = None
    error: str = ""
    step: int | None = None
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    origin: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    undisturbed: bool = True
    clean: str = ""

    @property
    def altered(self) -> str:
        """How the text of its figures differs from the original; see `figure_names.altered_text`."""
        return altered_text(self.clean, self.evaluation.get("valid", {}).get("lossless") is not False)

    def figure(self, name: str = RANKED_FIGURE, split: str = "valid") -> float | None:
        value = self.evaluation.get(split, {}).get(name)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def why_no_figure(self) -> str:
        """Why a run that is done has no bits per byte; empty if it has, or is not done."""
        if self.status != "done" or self.figure() is not None:
            return ""
        return str(self.evaluation.get("valid", {}).get(f"{RANKED_FIGURE}_note") or NOT_FINITE_NOTE)


@dataclass(frozen=True)
class SettingGroup:
    """Runs that differ only in their seed.

    Attributes:
        settings: the settings that the sweep varies, except the seed -> the value in these runs.
        label: those settings as text.
        counted: the runs that count for mean, spread and verdict: done, with bits per byte, and undisturbed (unless no
            run of the sweep is undisturbed).
        values: bits per byte of the counted runs.
    """

    settings: Mapping[str, Any]
    label: str
    runs: tuple[SweepRun, ...]
    counted: tuple[SweepRun, ...]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(value for run in self.counted if (value := run.figure()) is not None)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def is_whole(self) -> bool:
        """Whether all runs have a figure. A missing one might be a bad one."""
        return all(run.figure() is not None for run in self.runs)


@dataclass(frozen=True)
class Verdict:
    """Which setting is best, and how certain that is.

    Attributes:
        best: the group with the lowest mean; None if there are no figures, or they cannot be compared.
        next: the group with the second-lowest mean.
        difference: the difference of their means.
        margin: half the 95 % confidence interval of the difference (Welch's t); None without two seeds of each.
        is_clear: whether the difference is larger than the margin; None without a margin.
        sentence: the verdict as text.
    """

    best: SettingGroup | None
    next: SettingGroup | None
    difference: float | None
    margin: float | None
    is_clear: bool | None
    sentence: str


def setting_groups(runs: Sequence[SweepRun]) -> list[SettingGroup]:
    """The runs grouped by their settings without the seed, in the order of the grid."""
    by_settings: dict[str, list[SweepRun]] = {}
    for run in runs:
        by_settings.setdefault(repr(_without_seed(run.settings)), []).append(run)
    known = [run for run in runs if run.figure() is not None]
    counted = [run for run in known if run.undisturbed] or known
    groups = []
    for members in by_settings.values():
        settings = _without_seed(members[0].settings)
        own = tuple(run for run in members if run in counted)
        groups.append(SettingGroup(settings, label_of(settings), tuple(members), own))
    return groups


def label_of(settings: Mapping[str, Any]) -> str:
    """Settings as text; `all runs` if only the seed varies."""
    names = short_keys(list(settings))
    return ", ".join(f"{names[key]} {shown(value)}" for key, value in settings.items()) or "all runs"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, or the whole key if several keys have the same last part."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def shown(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def spread(group: SettingGroup) -> str:
    """`1.5021 ± 0.0030`: mean and standard deviation; `—` if no run counts."""
    if not group.values:
        return "—"
    return f"{group.mean:.4f}" + (f" ± {group.deviation:.4f}" if group.deviation is not None else "")


def verdict_of(groups: Sequence[SettingGroup]) -> Verdict:
    """Ranks the groups by their mean. A group with failed runs is ranked only if all groups have failed runs."""
    known = [group for group in groups if group.values]
    if not known:
        reason = next((why for group in groups for run in group.runs if (why := run.why_no_figure)), None)
        sentence = f"There are no bits per byte to compare: {reason}." if reason else NONE_DONE_NOTE
        return Verdict(None, None, None, None, None, sentence)
    if differs(known) or len({run.text for group in known for run in group.runs if run.text}) > 1:
        sentence = (
            "The runs were validated on different texts, so their figures cannot be compared and no best one is named."
        )
        return Verdict(None, None, None, None, None, sentence)
    ranked = sorted([group for group in known if group.is_whole] or known, key=lambda group: group.mean)
    best = ranked[0]
    if len(ranked) == 1:
        return Verdict(best, None, None, None, None, f"{_named(best)}.{_left_out(groups, ranked)}")
    second = ranked[1]
    difference, margin = second.mean - best.mean, margin_of(best, second)
    what = f"The next, {second.label}, is {difference:.4f} higher"
    if margin is None:
        sentence = (
            f"Lowest: {_named(best)}. {what}. With one run per setting, it is unknown how much of that is chance: "
            f"run several seeds, such as '{SEED_KEY}=[0,1,2]'."
        )
    elif difference > margin:
        sentence = f"Best: {_named(best)}. {what} (± {margin:.4f}, 95 % confidence): more than the spread over seeds."
    else:
        within = difference <= max(best.deviation or 0, second.deviation or 0)
        why = "within the spread over seeds" if within else "more than the spread over seeds, but of too few seeds"
        sentence = (
            f"Lowest mean: {_named(best)}. {what} (± {margin:.4f}, 95 % confidence): {why}, so these runs do not tell "
            "which of the two is better."
        )
    is_clear = None if margin is None else difference > margin
    return Verdict(best, second, difference, margin, is_clear, sentence + _left_out(groups, ranked))


def margin_of(one: SettingGroup, other: SettingGroup) -> float | None:
    """Half the 95 % confidence interval of the difference of two means, by Welch's t; None without two runs of each."""
    if one.deviation is None or other.deviation is None:
        return None
    parts = [(group.deviation or 0.0) ** 2 / len(group.values) for group in (one, other)]
    if not sum(parts):
        return 0.0
    below = sum(part**2 / (len(group.values) - 1) for part, group in zip(parts, (one, other), strict=True))
    freedom = int(sum(parts) ** 2 / below) if below else len(STUDENT_T) + 1
    quantile = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else 2.0
    return quantile * math.sqrt(sum(parts))


def differs(groups: Sequence[SettingGroup], names: Sequence[str] = TEXT_COUNTS) -> bool:
    """Whether the validations of the runs differ in any of these fields of their evaluation."""
    return any(
        len({run.figure(name) for group in groups for run in group.runs if run.figure() is not None}) > 1
        for name in names
    )


def caveats(groups: Sequence[SettingGroup]) -> list[str]:
    """What readers of the figures must know in addition to the verdict."""
    said = []
    if differs(groups, ("context", "stride")):
        said.append("Each model is scored with its own context, so the figures compare models together with contexts.")
    if differs(groups, ("unknown_rate", "round_trip_rate")) or differs(groups, ("lossless",)):
        said.append("The tokenizers drop different parts of the text; bits per byte do not count what is dropped.")
    if few := [group.label for group in groups if 0 < len(group.values) < MIN_SEEDS]:
        of = "" if len(few) == len(groups) else f" of {'; '.join(few)}"
        said.append(
            f"Fewer than three seeds{of} were run: too few for a spread. '{SEED_KEY}=[0,1,2]' runs three per setting."
        )
    disturbed = [run for group in groups for run in group.runs if run.figure() is not None and not run.undisturbed]
    if disturbed:
        names = "; ".join(run.name for run in disturbed)
        counted = any(run in group.counted for group in groups for run in disturbed)
        said.append(
            f"Changed when resumed (its length, another setting or the machine): {names}. "
            "Such a run may differ from a new run with the same settings"
            + (", but no other runs are done." if counted else ": left out of mean, spread and verdict.")
        )
    for group in groups:
        if reason := next((why for run in group.runs if (why := run.why_no_figure)), None):
            said.append(f"Bits per byte of {group.label}: {reason}.")
    return said


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != SEED_KEY}


def _named(group: SettingGroup) -> str:
    runs = "one run" if len(group.values) == 1 else f"mean and standard deviation of {len(group.values)} runs"
    return f"{group.label}, {spread(group)} bits per byte ({runs})"


def _left_out(groups: Sequence[SettingGroup], ranked: Sequence[SettingGroup]) -> str:
    """Names groups that are not ranked, or in which runs have no figure: the missing runs may be the bad ones."""
    left = [group.label for group in groups if group.values and group not in ranked]
    without = [group for group in groups if not group.values and any(run.status == "done" for run in group.runs)]
    part = [group.label for group in ranked if not group.is_whole]
    said = f" Not ranked, because not all of its runs have a figure: {'; '.join(left)}." if left else ""
    if without:
        told = (f"{group.label} ({_reasons(group)})" for group in without)
        said += f" Not ranked, because none of its runs counts: {'; '.join(told)}."
    return said + (f" Some runs have no figure: {'; '.join(part)}." if part else "")


def altered_in(groups: Sequence[SettingGroup]) -> str:
    """The note beside the figures if some are of altered text: `cleaned text, not comparable ...`; else empty."""
    texts = dict.fromkeys(run.altered for group in groups for run in group.runs if run.figure() is not None)
    return "; ".join(beside(text) for text in texts if text)


def group_rows(groups: Sequence[SettingGroup]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of groups, best mean first, groups without a result last."""
    keys = list(groups[0].settings)
    head = [*short_keys(keys).values(), "runs", *SCORE_HEADS, LEFT_OUT_HEAD]
    ranked = sorted(groups, key=lambda group: group.mean if group.values else math.inf)
    rows = []
    for group in ranked:
        losses = [loss for run in group.counted if (loss := run.figure("loss_per_token")) is not None]
        mean_loss = f"{statistics.fmean(losses):.4f}" if losses else "—"
        settings = [shown(group.settings[key]) for key in keys]
        rows.append([*settings, f"{len(group.values)}/{len(group.runs)}", spread(group), mean_loss, _reasons(group)])
    if not any(row[-1] for row in rows):
        return head[:-1], [row[:-1] for row in rows]
    return head, rows


def _reasons(group: SettingGroup) -> str:
    """How many runs are left out of the mean, for each reason."""
    counts = Counter(_reason(run) for run in group.runs if run not in group.counted)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _reason(run: SweepRun) -> str:
    if run.status != "done":
        return run.status
    if run.figure() is not None:
        return "changed when resumed"
    return "not finite" if run.why_no_figure == NOT_FINITE_NOTE else "without a figure"
