"""The report of a sweep: what was tried, which setting is best and how certain that is, all figures and curves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from acorn.counting import counted
from acorn.errors import AcornError
from acorn.files import write_file
from acorn.report.charts import COLOURS, axis_switch, validation_chart
from acorn.report.curves import RunCurves
from acorn.report.html import page
from acorn.report.markup import absent, escaped, noted, table
from acorn.report.rise import rise_in
from acorn.report.run_facts import RunFacts, read_run
from acorn.report.settings import setting_name
from acorn.report.sweep_dots import dots_figure
from acorn.report.sweep_figures import (
    LEFT_OUT_HEAD,
    SCORE_HEADS,
    SettingGroup,
    SweepRun,
    altered_in,
    caveats,
    group_rows,
    setting_groups,
    short_keys,
    shown,
    verdict_of,
)
from acorn.report.sweep_setup import setup_section


def write_sweep_report(path: Path, runs: Sequence[SweepRun]) -> Path:
    """Writes the page to `path` and returns `path`. Runs that cannot be read are named on the page.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    groups, facts = setting_groups(runs), _read_all(runs)
    verdict = verdict_of(groups)
    done = sum(run.status == "done" for run in runs)
    notes = "".join(f"<p>{escaped(said)}</p>" for said in caveats(groups))
    sections = [
        (
            "settings",
            "Settings compared",
            f"<p>{escaped(verdict.sentence)}</p>{notes}{_compared(groups)}{dots_figure(groups)}",
        ),
        ("setup", "Setup", setup_section(runs, facts)),
        ("curves", "Validation loss", _curves(groups, facts)),
        ("runs", "Runs", _runs(runs, groups, path.parent)),
    ]
    header = f"""<header>
<p class="eyebrow">acorn · sweep</p>
<h1>{escaped(path.parent.resolve().name)}</h1>
<p class="lede">{done} of {counted(len(runs), "run")} done.</p>
</header>"""
    write_file(path, page(path.parent.resolve().name, header, sections, "acorn sweep"))
    return path


def _compared(groups: Sequence[SettingGroup]) -> str:
    """The table of settings. Runs that are left out are noted below a setting, where a narrow page shows them too."""
    head, rows = group_rows(groups)
    cells = [[escaped(cell) for cell in row] for row in rows]
    if head[-1] == LEFT_OUT_HEAD:
        head = head[:-1]
        cells = [
            [row[0] + (f'<span class="note">{LEFT_OUT_HEAD}: {row[-1]}</span>' if row[-1] else ""), *row[1:-1]]
            for row in cells
        ]
    of_text = altered_in(groups)
    return table([noted(escaped(name), of_text if name in SCORE_HEADS else "") for name in head], cells)


def _read_all(runs: Sequence[SweepRun]) -> dict[str, RunFacts]:
    """Name of a run -> facts from its folder, without runs that have not started."""
    facts = {}
    for run in runs:
        with contextlib.suppress(AcornError):
            facts[run.name] = read_run(run.folder)
    return facts


def _curves(groups: Sequence[SettingGroup], facts: Mapping[str, RunFacts]) -> str:
    """The validation curves of all runs, with one color per setting."""
    curves: list[tuple[int, RunCurves]] = []
    problems, risen = [], []
    for number, group in enumerate(groups):
        for run in group.runs:
            if (found := facts.get(run.name)) is None:
                continue
            problems += [f'<p class="problem">{escaped(problem)}</p>' for problem in found.problems]
            curves.append((number % COLOURS, RunCurves(run.name, found.curves.train, found.curves.valid)))
            risen += [run.name] if rise_in(found.curves.valid) else []
    chart = validation_chart(curves, [group.label for group in groups])
    if not chart:
        return "".join(problems) + absent("No run was validated yet, so there is nothing to draw.")
    rise = (
        f'<p class="soft">Validation loss ended clearly above its lowest value in {len(risen)} of {len(curves)} runs '
        f"(overfitting, or too high a learning rate): {escaped('; '.join(risen))}.</p>"
        if risen
        else ""
    )
    return f"{''.join(problems)}{axis_switch()}{chart}{rise}"


def _runs(runs: Sequence[SweepRun], groups: Sequence[SettingGroup], folder: Path) -> str:
    """Every run with its settings and figures, and a link to its own report."""
    names = short_keys(list(runs[0].settings))
    rows = []
    for run in runs:
        where = quote(os.path.relpath(run.folder / "report.html", folder))
        name = escaped(run.name).replace(",", ",<wbr>")
        bits, loss = run.figure(), run.figure("loss_per_token")
        why = f"no bits per byte: {run.why_no_figure}" if run.why_no_figure else ""
        changed = "" if run.undisturbed else "changed when resumed"
        notes = "".join(f'<span class="note">{escaped(said)}</span>' for said in (run.error, why, changed) if said)
        rows.append(
            [
                (f'<a href="{where}">{name}</a>' if run.status == "done" else name) + notes,
                escaped(run.status + (f" ({run.exit_code})" if run.exit_code else "")),
                *(escaped(shown(run.settings[key])) for key in names),
                "—" if bits is None else f"{bits:.4f}",
                "—" if loss is None else f"{loss:.4f}",
            ]
        )
    figures = (noted(head, altered_in(groups)) for head in SCORE_HEADS)
    return table(["run", "status", *map(setting_name, names.values()), *figures], rows)
