"""confusion.png: the confusion matrix of a classifier, to look at first and to paste elsewhere.

matplotlib is loaded where something is drawn, as it takes a third of a second.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from acorn.files import write_file
from acorn.report.confusion import Matrix, matrix_of, short_names, width_of
from acorn.report.formats import short
from acorn.report.plots import COLOURS, DOTS_PER_INCH, INK, PAPER, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE, LEAST_CELL, MOST_CELL = 8.0, 0.32, 0.95
"""Inches: the matrix has sides of SIDE where its cells can be of a size between the other two."""
LONGEST = 26
"""Letters of a label."""
FULL = 0.75
"""Opacity of a cell with its whole row: dark text stays readable on it."""
POINTS = 72
LETTER = 0.62
"""Mean width of a letter, by the size of its font."""
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Heiti TC", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "Apple SD Gothic Neo", "Nanum Gothic", "SimHei", "Arial Unicode MS"),
)
"""Fonts with Chinese, Japanese or Korean characters, used where installed; matplotlib brings none."""


def confusion_png(labels: Sequence[str], confusion: Sequence[Sequence[int]], path: Path) -> None:
    """Writes the picture of a confusion matrix. On one machine, equal matrices give equal bytes.

    Args:
        labels: the names, in the order of rows and columns; of more than 50, those with the fewest mistakes are merged.
        confusion: counts; rows are true labels, columns predicted ones.

    Raises:
        ValueError: `confusion` does not have a row and a column for each label.
        ResourceError: the disk is full or cannot be written.
    """
    from matplotlib.figure import Figure

    matrix = matrix_of(labels, confusion)
    families, can_draw = _fonts("".join(matrix.labels))
    names = short_names(matrix.labels, LONGEST, can_draw)
    size = len(names)
    cell = min(max(SIDE / size, LEAST_CELL), MOST_CELL)
    name_size = min(max(0.3 * cell * POINTS, 7.5), 11.0)
    name_inches = max(map(width_of, names)) * LETTER * name_size / POINTS
    upright = name_inches > 0.92 * cell
    left, right, top = name_inches + 0.55, 0.95, 1.1
    bottom = (name_inches if upright else name_size / POINTS) + 0.6
    side = size * cell
    width, height = max(left + side + right, 5.2), bottom + side + top
    # A Figure of its own: pyplot would keep global state and look for a display.
    picture = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = picture.add_axes((left / width, bottom / height, side / width, side / height))
    axes.imshow(_colors(matrix), interpolation="nearest", aspect="auto")
    _write_counts(axes, matrix, cell)
    places = np.arange(size)
    axes.set_xticks(places, names, rotation=90 if upright else 0, fontsize=name_size, family=families, color=INK)
    axes.set_yticks(places, names, fontsize=name_size, family=families, color=INK)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted label", color=SOFT)
    axes.set_ylabel("true label", color=SOFT)
    for spine in axes.spines.values():
        spine.set_color("#d6d1c6")
    for edge in places[1:] - 0.5:
        axes.axhline(edge, color=PAPER, linewidth=0.8)
        axes.axvline(edge, color=PAPER, linewidth=0.8)
    picture.text(
        0.15 / width, 1 - 0.36 / height, "Confusion matrix", color=INK, fontsize=14, fontweight="bold", va="center"
    )
    shade = "shade: share of the row; blue is right, orange wrong"
    picture.text(0.15 / width, 1 - 0.62 / height, shade, color=SOFT, fontsize=9, va="center")
    axes.text(size - 0.5 + 0.1 / cell, -0.5 - 0.08 / cell, "examples", color=SOFT, fontsize=name_size, va="bottom")
    for row, examples in enumerate(matrix.support.tolist()):
        axes.text(size - 0.5 + 0.1 / cell, row, f"{examples:,}", color=SOFT, fontsize=name_size, va="center")
    memory = io.BytesIO()
    picture.savefig(memory, format="png", metadata={"Software": None})
    write_file(path, memory.getvalue())


def _write_counts(axes: Axes, matrix: Matrix, cell: float) -> None:
    """The count of each cell that has one, as large as it fits."""
    for (row, column), count in np.ndenumerate(matrix.counts):
        if count:
            text = f"{count}" if count < 10_000 else short(float(count))
            size = min(0.82 * cell * POINTS / (LETTER * len(text)), 0.36 * cell * POINTS, 12.0)
            axes.text(column, row, text, ha="center", va="center", color=INK, fontsize=size)


def _colors(matrix: Matrix) -> NDArray[np.float64]:
    """Red, green and blue of each cell (labels, labels, 3), between the paper and the color of right or wrong."""
    right, wrong, paper = (np.array(_rgb(color)) for color in (COLOURS[0], COLOURS[1], "#ffffff"))
    full = np.where(np.eye(len(matrix.labels), dtype=bool)[..., None], right, wrong)
    opacity = FULL * matrix.shares[..., None]
    # A cell with few of many examples is still told apart from one without any.
    opacity = np.where(matrix.counts[..., None] > 0, np.maximum(opacity, 0.06), 0.0)
    return np.asarray(paper + opacity * (full - paper))


def _rgb(color: str) -> list[float]:
    return [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def _fonts(text: str) -> tuple[list[str], Callable[[str], bool]]:
    """The families to draw `text` with, and whether they have a character.

    Further fonts are looked for only where matplotlib's own lacks a character. Without libraqm, matplotlib writes every
    script from left to right, so that Hebrew and Arabic would be reversed: they count as missing.
    """
    from matplotlib import font_manager, ft2font

    def font_of(family: str) -> ft2font.FT2Font:
        return font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=family)))

    shapes = hasattr(ft2font, "__libraqm_version__")
    families = [font_manager.FontProperties().get_name()]
    fonts = [font_of(families[0])]
    if not all(fonts[0].get_char_index(ord(letter)) for letter in text):
        installed = {font.name for font in font_manager.fontManager.ttflist}
        families += [name for name in FALLBACK_FONTS if name in installed]
        fonts += map(font_of, families[1:])

    def can_draw(letter: str) -> bool:
        if not shapes and unicodedata.bidirectional(letter) in ("R", "AL"):
            return False
        return letter.isspace() or any(font.get_char_index(ord(letter)) for font in fonts)

    return families, can_draw
