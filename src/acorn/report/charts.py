"""The charts of the HTML report: which curves, over which axis, with which legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from acorn.report.curves import RunCurves, cut_off_start, loss_range, range_from_zero, smoothed
from acorn.report.markup import escaped
from acorn.report.svg import Line, chart

AXES = (("tokens", "tokens"), ("seconds", "time"), ("step", "steps"))  # field of the records, word on the switch
COLOURS = 6
WIDE, PHONE, NARROW = (960, 400), (400, 300), (400, 200)
"""Sizes in units in which text is 12 high. Wide charts have a second version for phones, where they would be too
small to read."""


@dataclass(frozen=True)
class Measure:
    """A field of the train records that gets a small chart."""

    field: str
    title: str
    is_smoothed: bool = True


MEASURES = (
    Measure("lr", "Learning rate", is_smoothed=False),
    Measure("grad_norm", "Gradient norm, before clipping"),
    Measure("tokens_per_second", "Tokens per second"),
)


def axis_switch() -> str:
    """Radio buttons that choose the x axis of every chart after them in the same parent, without any script."""
    buttons = "".join(
        f'<input type="radio" name="axis" id="by-{field}" class="axis-radio"{" checked" if field == "tokens" else ""}>'
        for field, _ in AXES
    )
    labels = "".join(f'<label for="by-{field}">{word}</label>' for field, word in AXES)
    return f'{buttons}<p class="axis-switch"><span>Draw against</span>{labels}</p>'


def loss_chart(runs: Sequence[RunCurves], unit: str = "nats per token") -> str:
    """Training and validation loss, large; empty without any loss.

    Args:
        unit: of the loss; empty: the runs have different ones.
    """
    y_range = loss_range(runs)
    if y_range is None:
        return ""
    alone = len(runs) == 1

    def lines(axis: str) -> list[Line]:
        drawn = []
        for number, run in enumerate(runs):
            train, valid = run.series("train", "loss", axis), run.series("valid", "loss", axis)
            if alone:
                drawn += [Line("train, each line", train, 0, "raw"), Line("training", smoothed(train), 0)]
                drawn.append(Line("validation", valid, 1, "points"))
            else:
                drawn.append(Line(f"{run.name}, training", smoothed(train), number % COLOURS, "thin"))
                drawn.append(Line(f"{run.name}, validation", valid, number % COLOURS, "points"))
        return drawn

    if alone:
        legend = _legend([("raw", 0, "training, as logged"), ("line", 0, "training, smoothed")])
        legend += _legend([("points", 1, "validation")]) if lines("tokens")[-1].series.x.size else ""
    else:
        legend = _legend([("points", number % COLOURS, run.name) for number, run in enumerate(runs)])
        legend += '<span class="aside">thin: training, smoothed; with dots: validation</span>'
    if (start := cut_off_start(runs, y_range)) is not None:
        legend += f'<span class="aside">the curve starts above the chart, at {start:.2f}</span>'
    title = f"Loss ({unit})" if unit else "Loss"
    return _figure(title, legend, {axis: lines(axis) for axis, _ in AXES}, y_range, WIDE)


def bits_chart(runs: Sequence[RunCurves]) -> str:
    """Validation bits per byte, the figure that runs with different tokenizers share.

    Empty where no run has it, and for a lone run with a single validation: one dot is no curve.
    """
    if len(runs) == 1 and len(runs[0].series("valid", "bits_per_byte")) < 2:
        return ""
    y_range = loss_range([RunCurves(run.name, (), run.valid) for run in runs], "bits_per_byte")
    if y_range is None:
        return ""
    by_axis = {
        axis: [
            Line(run.name, run.series("valid", "bits_per_byte", axis), _colour(number, runs), "points")
            for number, run in enumerate(runs)
        ]
        for axis, _ in AXES
    }
    return _figure("Validation bits per byte", "", by_axis, y_range, NARROW)


def measure_charts(runs: Sequence[RunCurves]) -> str:
    """A small chart for each measure that any run has."""
    return "".join(_measure_chart(measure, runs) for measure in MEASURES)


def _measure_chart(measure: Measure, runs: Sequence[RunCurves]) -> str:
    drawn = [run.series("train", measure.field) for run in runs]
    if not any(len(found) for found in drawn):
        return ""
    by_axis = {}
    for axis, _ in AXES:
        lines = []
        for number, run in enumerate(runs):
            found = run.series("train", measure.field, axis)
            if measure.is_smoothed and len(runs) == 1:
                lines.append(Line("as logged", found, 0, "raw"))
            shown = smoothed(found) if measure.is_smoothed else found
            lines.append(Line(run.name if len(runs) > 1 else measure.title, shown, number % COLOURS))
        by_axis[axis] = lines
    return _figure(measure.title, "", by_axis, range_from_zero(drawn), NARROW)


def validation_chart(runs: Sequence[tuple[int, RunCurves]], labels: Sequence[str]) -> str:
    """Validation loss of many runs, each with the number of its colour; empty without any.

    Args:
        labels: what the colours stand for, from the first on; the colours come again after the last.
    """
    y_range = loss_range([RunCurves(run.name, (), run.valid) for _, run in runs])
    if y_range is None:
        return ""
    by_axis = {
        axis: [Line(run.name, run.series("valid", "loss", axis), colour, "points") for colour, run in runs]
        for axis, _ in AXES
    }
    legend = _legend([("points", number % COLOURS, label) for number, label in enumerate(labels)])
    return _figure("Validation loss (nats per token)", legend, by_axis, y_range, WIDE)


def _figure(
    title: str, legend: str, by_axis: dict[str, list[Line]], y_range: tuple[float, float], size: tuple[int, int]
) -> str:
    """One chart over each axis; the stylesheet shows the chosen one."""
    sizes = {"on-wide": WIDE, "on-phone": PHONE} if size == WIDE else {"on-all": size}
    charts = []
    for axis, lines in by_axis.items():
        named = [line for line in lines if len(line.series) and line.kind != "raw"]
        ends = [f"{line.label} ends at {line.series.y[-1]:.4g}" for line in named]
        summary = f"{title}: {'; '.join(ends)}"
        drawn = [
            f'<div class="{screen}">{chart(lines, axis, y_range, its_size, summary)}</div>'
            for screen, its_size in sizes.items()
        ]
        charts.append(f'<div class="over over-{axis}">{"".join(drawn)}</div>')
    caption = f'<figcaption><b>{title}</b><span class="legend">{legend}</span></figcaption>'
    return f'<figure class="{"wide" if size == WIDE else "narrow"}">{caption}{"".join(charts)}</figure>'


def _legend(entries: Sequence[tuple[str, int, str]]) -> str:
    return "".join(
        f'<span class="key"><i class="swatch {kind} c{colour}"></i>{escaped(name)}</span>'
        for kind, colour, name in entries
    )


def _colour(number: int, runs: Sequence[RunCurves]) -> int:
    """A run's colour; alone, validation has the second one, as in the loss chart."""
    return number % COLOURS if len(runs) > 1 else 1
