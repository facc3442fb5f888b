"""loss.png: the curve to look at first, and to paste elsewhere.

matplotlib is loaded where something is drawn: it takes a third of a second, which no run's first step should wait for.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from acorn.files import write_file
from acorn.report.curves import RunCurves, Series, cut_off_start, loss_range, smoothed, thinned
from acorn.report.formats import printable, short
from acorn.report.run_facts import read_run
from acorn.report.task_figures import TEXT_LOSS_UNIT, loss_unit
from acorn.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f6f8b", "#c4532d", "#5f7d2a", "#7d5ba6", "#b07d12", "#a23b6b")
INK, SOFT, GRID, PAPER = "#22211e", "#6b675f", "#e4e0d8", "#fcfbf8"
INCHES, DOTS_PER_INCH = (9.0, 5.0), 150
MOST_POINTS = 3000  # of one curve: more than the picture has dots from left to right
MOST_MARKS = 60  # of one curve: more would run into each other


def loss_png(runs: Sequence[RunCurves], path: Path, unit: str = TEXT_LOSS_UNIT) -> None:
    """Writes the training and validation loss of `runs` over the tokens seen. Equal curves give equal bytes.

    One run: its raw and smoothed training loss and its validation loss. Several: one colour a run.

    Args:
        unit: of the losses.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    from matplotlib.figure import Figure

    # A Figure of its own: pyplot would keep global state and look for a display.
    picture = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, facecolor=PAPER, layout="constrained")
    axes = picture.add_subplot()
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        train, valid = run.series("train", "loss"), run.series("valid", "loss")
        if len(runs) == 1:
            raw = thinned(train, MOST_POINTS)
            axes.plot(raw.x, raw.y, color=colour, alpha=0.28, linewidth=0.7)
            _curve(axes, smoothed(train), "training", colour)
            _curve(axes, valid, "validation", COLOURS[1], with_points=True)
        else:
            faint = smoothed(train)
            axes.plot(faint.x, faint.y, color=colour, alpha=0.6, linewidth=0.9)
            _curve(axes, valid if len(valid) else smoothed(train), run.name, colour, with_points=bool(len(valid)))
    _dress(axes, runs, unit)
    memory = io.BytesIO()
    picture.savefig(memory, format="png", metadata={"Software": None})
    write_file(path, memory.getvalue())


def write_loss_picture(run: Path) -> Path:
    """Writes RUN/loss.png from what the run has logged, and returns its path.

    Raises:
        UsageError: `run` is not a run folder.
    """
    path = RunFolder(run).loss_picture
    facts = read_run(run)
    loss_png([facts.curves], path, loss_unit([facts]))
    return path


def _curve(axes: Axes, series: Series, name: str, colour: str, with_points: bool = False) -> None:
    """A curve whose name in the legend tells its last value."""
    if not len(series):
        return
    (line,) = axes.plot(series.x, series.y, color=colour, linewidth=1.8, label=f"{series.y[-1]:.3f}  {printable(name)}")
    if with_points and len(series) <= MOST_MARKS:
        line.set(marker="o", markersize=4.5, markeredgecolor=PAPER)


def _dress(axes: Axes, runs: Sequence[RunCurves], unit: str) -> None:
    """Title, axes, grid and legend. Names are never read as mathematics, whatever `$` they hold."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    title = printable(runs[0].name) if len(runs) == 1 else "Loss of several runs"
    axes.set_title(title, loc="left", color=INK, fontsize=14, fontweight="bold", pad=10, parse_math=False)
    axes.set_ylabel(f"loss ({unit})", color=SOFT)
    axes.set_xlabel("tokens seen", color=SOFT)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.set_xlim(left=0)
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, length=3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    y_range = loss_range(runs)
    if y_range is None:
        axes.text(0.5, 0.5, "no loss logged yet", transform=axes.transAxes, ha="center", color=SOFT)
        return
    axes.set_ylim(*y_range)
    if (start := cut_off_start(runs, y_range)) is not None:
        words = f"the curve starts above the chart, at {start:.2f}"
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 2}
        axes.text(0.05, 0.95, words, transform=axes.transAxes, va="top", color=SOFT, fontsize=9, bbox=behind)
    legend = axes.legend(loc="upper right", frameon=False, labelcolor=INK, title="last value", alignment="left")
    legend.get_title().set_color(SOFT)
    for text in legend.get_texts():
        text.set_parse_math(False)
    if len(runs) == 1:
        _add_steps(axes, runs[0])


def _add_steps(axes: Axes, run: RunCurves) -> None:
    """The optimizer steps along the top, where tokens and steps are proportional (no batch ramp)."""
    from matplotlib.ticker import FuncFormatter

    steps = run.series("train", "step")
    if not len(steps) or steps.x[-1] <= 0 or steps.y[-1] <= 0:
        return
    tokens_per_step = steps.x[-1] / steps.y[-1]
    if not np.allclose(steps.x, steps.y * tokens_per_step, rtol=0.01):
        return
    top = axes.secondary_xaxis("top", functions=(lambda x: x / tokens_per_step, lambda x: x * tokens_per_step))
    top.set_xlabel("optimizer steps", color=SOFT, fontsize=9)
    top.tick_params(colors=SOFT, length=3, labelsize=9)
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    top.spines["top"].set_visible(False)
