"""The sweep report's picture of all figures: one dot per run, one line per setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acorn.report.charts import COLOURS
from acorn.report.markup import escaped
from acorn.report.sweep_figures import SettingGroup, spread

TOP = 14
BOTTOM = 26


@dataclass(frozen=True)
class Layout:
    """Units of one form of the picture.

    Attributes:
        row: height of a setting.
        left, right: margins of the plot.
        label_above: the label stands above its line instead of left of it.
        longest_label: characters.
    """

    width: int
    row: int
    left: int
    right: int
    label_above: bool
    longest_label: int


LAYOUTS = {
    "on-wide": Layout(960, 30, 260, 20, label_above=False, longest_label=36),
    "on-phone": Layout(400, 48, 10, 10, label_above=True, longest_label=46),
}


def dots_figure(groups: Sequence[SettingGroup]) -> str:
    """A dot for each run's bits per byte, a line for each setting, and a bar of the mean ± one standard deviation.

    Empty where fewer than two figures differ.
    """
    known = [group for group in groups if group.values]
    values = [value for group in known for value in group.values]
    if len(values) < 2 or max(values) == min(values):
        return ""
    summary = escaped("; ".join(f"{group.label}: {spread(group)}" for group in known))
    pictures = "".join(
        f'<div class="{screen}">{_dots(groups, known, layout, summary)}</div>' for screen, layout in LAYOUTS.items()
    )
    return (
        '<figure class="wide"><figcaption><b>Validation bits per byte</b><span class="legend">one dot per run; the bar '
        f"is the mean ± one standard deviation over the seeds</span></figcaption>{pictures}</figure>"
    )


def _dots(groups: Sequence[SettingGroup], known: Sequence[SettingGroup], layout: Layout, summary: str) -> str:
    values = [value for group in known for value in group.values]
    bars = [group.mean + sign * (group.deviation or 0) for group in known for sign in (-1, 1)]
    low, high = min(values + bars), max(values + bars)
    right = layout.width - layout.right
    scale = (right - layout.left) / (1.1 * (high - low))
    parts = []

    def x_of(value: float) -> float:
        return min(max(layout.left + (value - low + 0.05 * (high - low)) * scale, layout.left), right)

    for number, group in enumerate(sorted(known, key=lambda group: group.mean)):
        colour = groups.index(group) % COLOURS
        y = TOP + layout.row * number + layout.row * (0.75 if layout.label_above else 0.5)
        parts.append(_label(group.label, y, layout))
        parts.append(f'<line class="grid" x1="{layout.left}" x2="{right}" y1="{y}" y2="{y}"/>')
        if group.deviation:
            ends = (x_of(group.mean - group.deviation), x_of(group.mean + group.deviation))
            parts.append(f'<polyline class="line c{colour}" points="{ends[0]:.1f},{y} {ends[1]:.1f},{y}"/>')
        parts += [f'<circle class="c{colour}" cx="{x_of(value):.1f}" cy="{y}" r="4"/>' for value in group.values]
    bottom = TOP + layout.row * len(known)
    for value, anchor in ((min(values), "start"), (max(values), "end")):
        at = x_of(value)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 19}" text-anchor="{anchor}">{value:.4f}</text>')
    box = f"0 0 {layout.width} {bottom + BOTTOM}"
    return f'<svg class="dots" viewBox="{box}" role="img" aria-label="{summary}">{"".join(parts)}</svg>'


def _label(label: str, y: float, layout: Layout) -> str:
    text = label if len(label) <= layout.longest_label else label[: layout.longest_label - 1] + "…"
    if layout.label_above:
        return f'<text class="tick" x="{layout.left}" y="{y - 12}">{escaped(text)}</text>'
    return f'<text class="tick" x="{layout.left - 12}" y="{y + 4}" text-anchor="end">{escaped(text)}</text>'
