"""A bar chart of tokens per second, one panel per task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ACORN_COLOR, OTHER_COLOR = "#2a7f3f", "#9aa5b1"


def draw_chart(found: dict[str, Any], path: Path) -> None:
    """Writes a PNG with the results of training and generation; nothing if neither was measured."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {f"training {name}": (table["contenders"], "tokens_per_second") for name, table in found["train"].items()}
    panels |= {f"generating {name}": (rows, "decode_tokens_per_second") for name, rows in found["generate"].items()}
    if not panels:
        return
    heights = [sum(1 for row in rows if "failure" not in row) for rows, _ in panels.values()]
    figure, all_axes = plt.subplots(
        len(panels),
        figsize=(9, 0.34 * sum(heights) + 0.75 * len(panels)),
        squeeze=False,
        height_ratios=[height + 1 for height in heights],
    )
    for axes, (title, (rows, key)) in zip(all_axes[:, 0], panels.items(), strict=True):
        shown = [row for row in rows if "failure" not in row][::-1]
        colors = [ACORN_COLOR if row["name"].startswith("acorn") else OTHER_COLOR for row in shown]
        bars = axes.barh([row["name"] for row in shown], [row[key] for row in shown], color=colors)
        axes.bar_label(bars, [f"{row[key]:,.0f}" for row in shown], padding=3, fontsize=8)
        axes.set_title(title, loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.12)
        axes.tick_params(labelsize=8)
    all_axes[-1, 0].set_xlabel("tokens per second")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
