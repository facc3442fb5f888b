"""The report of a sweep: which setting is best and how sure that is, every run's figure, and the curves of all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from acorn.errors import AcornError
from acorn.files import write_file
from acorn.report.charts import COLOURS, axis_switch, validation_chart
from acorn.report.curves import RunCurves
from acorn.report.html import page
from acorn.report.markup import absent, escaped, table
from acorn.report.run_facts import read_run
from acorn.report.sweep_figures import (
    SettingGroup,
    SweepRun,
    caveats,
    group_rows,
    setting_groups,
    shown,
    spread,
    verdict_of,
)

WIDTH, ROW, LEFT, RIGHT, TOP = 960, 30, 260, 20, 14
"""Units of the picture of all figures: its width, the height of a setting, and the margins."""


def write_sweep_report(path: Path, runs: Sequence[SweepRun]) -> Path:
    """Writes the page to `path` and returns it. Runs that cannot be read are named in it.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    groups = setting_groups(runs)
    verdict = verdict_of(groups)
    done = sum(run.status == "done" for run in runs)
    notes = "".join(f"<p>{escaped(said)}</p>" for said in caveats(groups))
    head, rows = group_rows(groups)
    compared = table([escaped(name) for name in head], [[escaped(cell) for cell in row] for row in rows])
    sections = [
        ("settings", "Settings compared", f"<p>{escaped(verdict.sentence)}</p>{notes}{compared}{_picture(groups)}"),
        ("curves", "Validation loss", _curves(groups)),
        ("runs", "Runs", _runs(runs, path.parent)),
    ]
    header = f"""<header>
<p class="eyebrow">acorn · sweep</p>
<h1>{escaped(path.parent.resolve().name)}</h1>
<p class="lede">{done} of {len(runs)} runs are done.</p>
</header>"""
    write_file(path, page(path.parent.resolve().name, header, sections, "acorn sweep"))
    return path


def _picture(groups: Sequence[SettingGroup]) -> str:
    """A dot for each run's bits per byte, a line for each setting, and a bar of one standard deviation to each side."""
    known = [group for group in groups if group.values]
    values = [value for group in known for value in group.values]
    if len(values) < 2 or max(values) == min(values):
        return ""
    low, high = min(values), max(values)
    scale = (WIDTH - LEFT - RIGHT) / (1.1 * (high - low))
    parts = []

    def x_of(value: float) -> float:
        return min(max(LEFT + (value - low + 0.05 * (high - low)) * scale, LEFT), WIDTH - RIGHT)

    for number, group in enumerate(sorted(known, key=lambda group: group.mean)):
        y, colour = TOP + ROW * number + ROW / 2, groups.index(group) % COLOURS
        label = group.label if len(group.label) <= 36 else group.label[:35] + "…"
        parts.append(f'<text class="tick" x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escaped(label)}</text>')
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        if group.deviation:
            ends = (x_of(group.mean - group.deviation), x_of(group.mean + group.deviation))
            parts.append(f'<polyline class="line c{colour}" points="{ends[0]:.1f},{y} {ends[1]:.1f},{y}"/>')
        parts += [f'<circle class="c{colour}" cx="{x_of(value):.1f}" cy="{y}" r="4"/>' for value in group.values]
    bottom = TOP + ROW * len(known)
    for value in (low, high):
        at = x_of(value)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{value:.4f}</text>')
    summary = "; ".join(f"{group.label}: {spread(group)}" for group in known)
    return (
        '<figure class="wide"><figcaption><b>Bits per byte of validation</b><span class="legend">a dot a run; the bar '
        "is one standard deviation over the seeds to each side</span></figcaption>"
        f'<div class="scroll"><svg class="dots" viewBox="0 0 {WIDTH} {bottom + 26}" role="img" '
        f'aria-label="{escaped(summary)}">'
        f"{''.join(parts)}</svg></div></figure>"
    )


def _curves(groups: Sequence[SettingGroup]) -> str:
    """The validation curves of all runs, those of one setting in one colour."""
    curves: list[tuple[int, RunCurves]] = []
    problems = []
    for number, group in enumerate(groups):
        for run in group.runs:
            try:
                facts = read_run(run.folder)
            except AcornError:  # not begun
                continue
            problems += [f'<p class="problem">{escaped(problem)}</p>' for problem in facts.problems]
            curves.append((number % COLOURS, RunCurves(run.name, facts.curves.train, facts.curves.valid)))
    chart = validation_chart(curves, [group.label for group in groups])
    if not chart:
        return "".join(problems) + absent("No run was validated yet, so there is nothing to draw.")
    return f"{''.join(problems)}{axis_switch()}{chart}"


def _runs(runs: Sequence[SweepRun], folder: Path) -> str:
    """Every run with its settings and figures, and a way to its own report."""
    keys = list(runs[0].settings)
    rows = []
    for run in runs:
        where = quote(os.path.relpath(run.folder / "report.html", folder))
        name = escaped(run.name)
        bits, loss = run.figure(), run.figure("loss_per_token")
        rows.append(
            [
                f'<a href="{where}">{name}</a>' if run.status == "done" else name,
                *(escaped(shown(run.settings[key])) for key in keys),
                "—" if bits is None else f"{bits:.4f}",
                "—" if loss is None else f"{loss:.4f}",
                escaped(run.status + (f" ({run.exit_code}): {run.error}" if run.error else "")),
            ]
        )
    names = [f"<code>{escaped(key)}</code>" for key in keys]
    return table(["run", *names, "bits per byte", "loss per token", "status"], rows)
