"""What the runs of a sweep came to: mean and spread over seeds for each setting, and which one is best, if any is.

The figure is bits per byte of the validation text: it may be compared over tokenizers, losses may not.
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

SEED = "train.seed"
FIGURE = "bits_per_byte"
TEXT = ("documents", "bytes", "words")
"""Counts of an evaluation that are equal where the same part of the same text was scored."""

LEFT_OUT = "left out"
"""Head of the last column of the table of settings, which is there where runs have no part in the mean."""

MEASURED_HEADS = ("bits per byte", "loss")
"""Heads of the columns of figures in that table."""

NOT_FINITE = "the loss of the final model is not a finite number"

FEWEST_SEEDS = 3
"""With fewer, a standard deviation tells little of the spread: that of two runs is below a third of the true one a
quarter of the time."""

NONE_DONE = "No run is done yet, so there is nothing to compare."

STUDENT_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
"""Two-sided 95 % quantiles of Student's t distribution for 1, 2, ... degrees of freedom; beyond, 2.0 is near enough."""


@dataclass(frozen=True)
class SweepRun:
    """The state of one run of a sweep.

    Attributes:
        settings: the settings that the sweep varies -> this run's values.
        exit_code, error: of a run that diverged or failed.
        step: the last one of a run that is done.
        evaluation: split -> figures of the finished model, as evaluation.json has them.
        text: the digest of the validation text; empty where it is not known.
        clean: how that text was cleaned, as `data.clean`; empty where it is not known.
        undisturbed: whether it went as an uninterrupted run would; not so once its length, another setting or the
            machine was changed when it resumed.
        origin: the preset or file that the sweep's configs come from; empty where it is not known.
        given: dotted key -> value of all settings, before acorn chooses what they leave open.
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
        """Which text its figures are of, where it is not the original; see `figure_names.altered_text`."""
        return altered_text(self.clean, self.evaluation.get("valid", {}).get("lossless") is not False)

    def figure(self, name: str = FIGURE, split: str = "valid") -> float | None:
        value = self.evaluation.get(split, {}).get(name)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def why_no_figure(self) -> str:
        """Why a run that is done has no bits per byte; empty where it has some, or is not done."""
        if self.status != "done" or self.figure() is not None:
            return ""
        return str(self.evaluation.get("valid", {}).get(f"{FIGURE}_note") or NOT_FINITE)  # which is left out


@dataclass(frozen=True)
class SettingGroup:
    """Runs that differ in their seed alone.

    Attributes:
        settings: what they have in common, of the settings that the sweep varies.
        label: those as words.
        counted: those that mean, spread and verdict are made of: done, with bits per byte, and undisturbed, unless no
            run of the sweep is.
        values: bits per byte of these.
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
        """Sample standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def is_whole(self) -> bool:
        """Whether no run is missing that may have been a bad one."""
        return all(run.figure() is not None for run in self.runs)


@dataclass(frozen=True)
class Verdict:
    """Which setting came out best, and how sure that is.

    Attributes:
        best: the group with the lowest mean; None where figures cannot be compared, or there are none.
        next: the group with the second lowest.
        difference: of their means.
        margin: half the 95 % confidence interval of the difference (Welch's t); None without two seeds of each.
        is_clear: whether the difference is larger than that; None where there is nothing to tell it by.
        sentence: all this in words.
    """

    best: SettingGroup | None
    next: SettingGroup | None
    difference: float | None
    margin: float | None
    is_clear: bool | None
    sentence: str


def setting_groups(runs: Sequence[SweepRun]) -> list[SettingGroup]:
    """The runs by their settings without the seed, in the order of the grid."""
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
    """Settings as words; where only the seed is varied there are none."""
    names = short_keys(list(settings))
    return ", ".join(f"{names[key]} {shown(value)}" for key, value in settings.items()) or "all runs"


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> its last part, or all of it where another one ends the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def shown(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(shown, value)) if isinstance(value, list | tuple) else str(value)


def spread(group: SettingGroup) -> str:
    """`1.5021 ± 0.0030`: mean and standard deviation; `—` where no run is done."""
    if not group.values:
        return "—"
    return f"{group.mean:.4f}" + (f" ± {group.deviation:.4f}" if group.deviation is not None else "")


def verdict_of(groups: Sequence[SettingGroup]) -> Verdict:
    """Which group is best by its mean. One with runs that failed is named only where all have such."""
    known = [group for group in groups if group.values]
    if not known:
        reason = next((why for group in groups for run in group.runs if (why := run.why_no_figure)), None)
        sentence = f"There are no bits per byte to compare: {reason}." if reason else NONE_DONE
        return Verdict(None, None, None, None, None, sentence)
    if differs(known) or len({run.text for group in known for run in group.runs if run.text}) > 1:
        sentence = (
            "The runs are validated on different texts: their figures cannot be compared, and no best one is named."
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
            f"Lowest: {_named(best)}. {what}. With one run per setting, nobody knows how much of that is chance: "
            f"run several seeds, such as '{SEED}=[0,1,2]'."
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


def differs(groups: Sequence[SettingGroup], names: Sequence[str] = TEXT) -> bool:
    """Whether the validations of the runs differ in any of these fields of their evaluation."""
    return any(
        len({run.figure(name) for group in groups for run in group.runs if run.figure() is not None}) > 1
        for name in names
    )


def caveats(groups: Sequence[SettingGroup]) -> list[str]:
    """What a reader of the figures has to know beside the verdict."""
    said = []
    if differs(groups, ("context", "stride")):
        said.append("Each model is scored with its own context, so the figures compare models together with contexts.")
    if differs(groups, ("unknown_rate", "round_trip_rate")) or differs(groups, ("lossless",)):
        said.append("The tokenizers drop different parts of the text; bits per byte do not count what is dropped.")
    if few := [group.label for group in groups if 0 < len(group.values) < FEWEST_SEEDS]:
        of = "" if len(few) == len(groups) else f" of {'; '.join(few)}"
        said.append(
            f"Fewer than three seeds{of} were run: too few for a spread. '{SEED}=[0,1,2]' runs three of each setting."
        )
    disturbed = [run for group in groups for run in group.runs if run.figure() is not None and not run.undisturbed]
    if disturbed:
        names = "; ".join(run.name for run in disturbed)
        counted = any(run in group.counted for group in groups for run in disturbed)
        said.append(
            f"Changed when resumed (its length, another setting or the machine): {names}. "
            "Such a run is not what a fresh run of its settings gives"
            + (", and no other ones are done." if counted else ": left out of mean, spread and verdict.")
        )
    for group in groups:
        if reason := next((why for run in group.runs if (why := run.why_no_figure)), None):
            said.append(f"Bits per byte of {group.label}: {reason}.")
    return said


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != SEED}


def _named(group: SettingGroup) -> str:
    runs = "one run" if len(group.values) == 1 else f"mean and standard deviation of {len(group.values)} runs"
    return f"{group.label}, {spread(group)} bits per byte ({runs})"


def _left_out(groups: Sequence[SettingGroup], ranked: Sequence[SettingGroup]) -> str:
    """Groups that are not ranked though they have results, since the runs that are missing may be the bad ones."""
    left = [group.label for group in groups if group.values and group not in ranked]
    without = [group for group in groups if not group.values and any(run.status == "done" for run in group.runs)]
    part = [group.label for group in ranked if not group.is_whole]
    said = f" Not ranked, for not all of its runs have a figure: {'; '.join(left)}." if left else ""
    if without:
        told = (f"{group.label} ({_reasons(group)})" for group in without)
        said += f" Not ranked, for none of its runs counts: {'; '.join(told)}."
    return said + (f" Not all runs have a figure of: {'; '.join(part)}." if part else "")


def altered_in(groups: Sequence[SettingGroup]) -> str:
    """What stands beside the figures, where some are not of the original text: `cleaned text, not comparable ...`."""
    texts = dict.fromkeys(run.altered for group in groups for run in group.runs if run.figure() is not None)
    return "; ".join(beside(text) for text in texts if text)


def group_rows(groups: Sequence[SettingGroup]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of groups, the best mean first, those without a result last."""
    keys = list(groups[0].settings)
    head = [*short_keys(keys).values(), "runs", *MEASURED_HEADS, LEFT_OUT]
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
    """How many runs have no part in the mean, by the reason."""
    counts = Counter(_reason(run) for run in group.runs if run not in group.counted)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _reason(run: SweepRun) -> str:
    if run.status != "done":
        return run.status
    if run.figure() is not None:
        return "changed when resumed"
    return "not finite" if run.why_no_figure == NOT_FINITE else "without a figure"
