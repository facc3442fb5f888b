"""The confusion matrix as SVG text of the page, in the page's colors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acorn.counting import counted
from acorn.report.confusion import Matrix, matrix_of, short_names, width_of
from acorn.report.formats import short
from acorn.report.markup import escaped

SIDE, LEAST_CELL, MOST_CELL = 640.0, 18.0, 64.0
"""Units: the matrix has sides of SIDE where its cells can be of a size between the other two."""
LONGEST = 24
"""Letters of a label."""
LETTER = 6.6
"""Units of a letter, in text 12 units high."""
FULL = 0.6
"""Opacity of a cell with its whole row: text stays readable on it, on light and on dark pages."""
LEAST = 0.05
"""Opacity of a cell with few of many examples, which is to be told apart from one without any."""
GAP = 10.0
TITLE = 22.0


def confusion_figure(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """A `<figure>` with the matrix; where the pointer rests, a cell says its labels in full.

    Args:
        labels: the names, in the order of rows and columns; of more than 50, those with the fewest mistakes are merged.
        confusion: counts; rows are true labels, columns predicted ones.

    Raises:
        ValueError: `confusion` does not have a row and a column for each label.
    """
    matrix = matrix_of(labels, confusion)
    legend = "rows: true label; columns: predicted label; shade: share of the row; blue is right, orange wrong"
    if matrix.merged:
        legend += f"; the {matrix.merged:,} labels with the fewest mistakes share the last row and column"
    caption = f'<figcaption><b>Confusion matrix</b><span class="legend">{legend}</span></figcaption>'
    return f'<figure>{caption}<div class="scroll">{_svg(matrix)}</div></figure>'


def _svg(matrix: Matrix) -> str:
    names = short_names(matrix.labels, LONGEST)
    size = len(names)
    cell = min(max(SIDE / size, LEAST_CELL), MOST_CELL)
    name_width = max(max(map(width_of, names)) * LETTER, 40.0)
    upright = name_width > cell
    left = name_width + GAP + TITLE
    side = size * cell
    bottom = side + GAP + (name_width if upright else 12.0) + TITLE
    width, height = left + side + 76, 20 + bottom
    parts = [f'<rect class="back" x="{left:.1f}" y="20" width="{side:.1f}" height="{side:.1f}"/>']
    parts += _cells(matrix, cell, left)
    for number, (name, examples) in enumerate(zip(names, matrix.support.tolist(), strict=True)):
        middle = (number + 0.5) * cell
        y, x = 20 + middle, left + middle
        text = escaped(name)
        parts.append(f'<text class="name" x="{left - GAP:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<text class="tick" x="{left + side + GAP:.1f}" y="{y + 4:.1f}">{examples:,}</text>')
        below = 20 + side + GAP
        if upright:
            turned = f'transform="translate({x + 4:.1f} {below:.1f}) rotate(-90)" text-anchor="end"'
        else:
            turned = f'x="{x:.1f}" y="{below + 8:.1f}" text-anchor="middle"'
        parts.append(f'<text class="name" {turned}>{text}</text>')
    for number in range(size + 1):
        at = number * cell
        parts.append(f'<path class="edge" d="M{left:.1f} {20 + at:.1f}h{side:.1f}M{left + at:.1f} 20v{side:.1f}"/>')
    middle = left + side / 2
    parts.append(f'<text class="title" x="{left + side + GAP:.1f}" y="12">examples</text>')
    parts.append(
        f'<text class="title" x="{middle:.1f}" y="{height - 6:.1f}" text-anchor="middle">predicted label</text>'
    )
    turned = f'transform="translate(12 {20 + side / 2:.1f}) rotate(-90)" text-anchor="middle"'
    parts.append(f'<text class="title" {turned}>true label</text>')
    right, examples = int(matrix.counts.diagonal().sum()), int(matrix.counts.sum())
    summary = f"Confusion matrix of {size} labels: {right:,} of {counted(examples, 'example')} right"
    # No wider than its natural size, and no smaller than can be read: on a phone it scrolls.
    style = f"width: {width:.0f}px; max-width: max(100%, {0.8 * width:.0f}px)"
    return (
        f'<svg class="matrix" viewBox="0 0 {width:.1f} {height:.1f}" style="{style}" role="img" '
        f'aria-label="{escaped(summary)}">{"".join(parts)}</svg>'
    )


def _cells(matrix: Matrix, cell: float, left: float) -> list[str]:
    """A square with its count for each cell that has one."""
    parts = []
    for (row, column), count in np.ndenumerate(matrix.counts):
        if not count:
            continue
        share = float(matrix.shares[row, column])
        kind = "right" if row == column else "wrong"
        x, y = left + column * cell, 20 + row * cell
        text = f"{count}" if count < 10_000 else short(float(count))
        size = min(0.85 * cell / (0.58 * len(text)), 0.5 * cell, 15.0)
        said = (
            f"true {matrix.labels[row]}, predicted {matrix.labels[column]}: "
            f"{count:,} of {matrix.support[row]:,} ({100 * share:.3g} %)"
        )
        parts.append(
            f'<g><title>{escaped(said)}</title><rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" '
            f'height="{cell:.1f}" fill-opacity="{max(FULL * share, LEAST):.3f}"/><text x="{x + cell / 2:.1f}" '
            f'y="{y + cell / 2 + 0.36 * size:.1f}" font-size="{size:.1f}" text-anchor="middle">{text}</text></g>'
        )
    return parts
