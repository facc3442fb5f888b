"""Draws docs/imports.png: the folders of src/acorn in their layers (floors), and the imports between them."""

from __future__ import annotations

from pathlib import Path

import grimp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as Curve

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "imports.png"

FLOORS = (
    (),  # the files at the top of the package, which any folder may import
    ("text", "tokenizer", "runtime"),
    ("data", "model"),
    ("kernels",),
    ("checkpoint", "generate", "evaluate", "report"),
    ("train", "export"),
    ("run",),
    ("cli", "api"),
)


BOX = {"boxstyle": "round,pad=0.4", "fc": "#f4efe4", "ec": "#5b4b35"}
GROUND_FLOOR = "config, errors, files, progress and other files at the top: imported by every floor"


def places() -> dict[str, tuple[float, float]]:
    """The position of each folder or file: one row per floor, from the bottom up."""
    return {
        name: ((number + 0.5) / len(names), float(floor))
        for floor, names in enumerate(FLOORS)
        for number, name in enumerate(names)
    }


def edges() -> set[tuple[str, str]]:
    """(importer, imported) pairs of folders."""
    graph = grimp.build_graph("acorn", cache_dir=None)
    where = places()
    found = set()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            one, other = (name.split(".")[1] if "." in name else "" for name in (module, imported))
            if one != other and one in where and other in where:
                found.add((one, other))
    return found


def curve(begin: tuple[float, float], end: tuple[float, float], boxes: list[tuple[str, tuple[float, float]]]) -> Curve:
    """The straightest curve from `begin` to `end` that passes no box; a straight line if there is none."""
    share = np.linspace(0, 1, 60)[:, None]
    straight = None
    for bend in (0, *(sign * 0.01 * size for size in range(1, 50) for sign in (1, -1))):
        middle = ((begin[0] + end[0]) / 2 + bend, (begin[1] + end[1]) / 2)
        points = np.array([begin, middle, end])
        line = (1 - share) ** 2 * points[0] + 2 * share * (1 - share) * points[1] + share**2 * points[2]
        found = Curve(points, [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3])
        straight = straight or found
        if not any(passes(line, name, place) for name, place in boxes):
            return found
    assert straight is not None
    return straight


def passes(line: np.ndarray, name: str, place: tuple[float, float]) -> bool:
    """Whether points (n, 2) of a line are in the box of a folder, or next to it."""
    x, y = np.abs(line - place).T
    return bool(((x < 0.010 + 0.0052 * len(name)) & (y < 0.2)).any())


def draw() -> None:
    where = places()
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots()
    for one, other in sorted(edges()):
        (x, y), (to_x, to_y) = where[one], where[other]
        runs_up = to_y > y
        others = [(name, place) for name, place in where.items() if name not in (one, other)]
        path = curve((x, y - 0.13), (to_x, to_y + 0.17), others)
        color, width = ("#c0392b", 1.8) if runs_up else ("#8a9a8b", 0.8)
        axes.add_patch(
            FancyArrowPatch(path=path, arrowstyle="-|>", mutation_scale=9, color=color, linewidth=width, zorder=1)
        )
    for name, (x, y) in where.items():
        axes.text(x, y, name, ha="center", va="center", bbox=BOX, fontsize=11)
    axes.text(0.5, 0, GROUND_FLOOR, ha="center", va="center", bbox={**BOX, "fc": "#e9e4d8"}, fontsize=10)
    axes.set(xlim=(0, 1), ylim=(-0.5, len(FLOORS) - 0.5), yticks=range(len(FLOORS)), xticks=[], ylabel="floor")
    axes.set_title(
        "Imports between the folders of src/acorn: every arrow points down (one that pointed up would be red)"
    )
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    draw()
