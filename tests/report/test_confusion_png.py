from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import ft2font
from matplotlib.image import imread

from acorn.report.confusion_png import FULL, _fonts, confusion_png
from acorn.report.plots import COLOURS

STRANGE = ["$x_{2}$", "", "<b>\n", "دואר זבל", "垃圾邮件", "a very long label that nobody would want to read " * 3]


def pixels_of(picture: np.ndarray, color: str, opacity: float) -> int:
    """Pixels of a color laid over white."""
    full = np.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return int(np.isclose(picture[..., :3], 1 + opacity * (full - 1), atol=0.004).all(axis=-1).sum())


def test_right_is_blue_wrong_is_orange_and_shades_are_shares_of_the_row(tmp_path: Path) -> None:
    confusion_png(["ham", "spam"], [[900, 100], [10, 10]], tmp_path / "confusion.png")
    picture = imread(tmp_path / "confusion.png")
    blue, orange = COLOURS[:2]
    assert pixels_of(picture, blue, FULL * 0.9) > 10_000
    assert pixels_of(picture, orange, FULL * 0.1) > 10_000
    assert pixels_of(picture, blue, FULL * 0.5) > 10_000
    assert pixels_of(picture, orange, FULL * 0.5) > 10_000


def test_equal_matrices_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        confusion_png(["a", "b"], [[1, 2], [3, 4]], tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in content.lower()


@pytest.mark.filterwarnings("error")
def test_any_label_can_be_drawn_without_a_missing_glyph(tmp_path: Path) -> None:
    """matplotlib warns of each glyph that it does not have."""
    size = len(STRANGE)
    confusion_png(STRANGE, np.eye(size, dtype=int).tolist(), tmp_path / "confusion.png")
    height, width = imread(tmp_path / "confusion.png").shape[:2]
    assert max(height, width) < 2000


def test_many_labels_are_no_more_than_fifty_rows_high_enough_for_a_name(tmp_path: Path) -> None:
    counts = np.diag(np.full(200, 7)).tolist()
    confusion_png([f"label {number}" for number in range(200)], counts, tmp_path / "confusion.png")
    height, cell = imread(tmp_path / "confusion.png").shape[0], 0.32 * 150
    assert 50 * cell < height < 75 * cell


def test_without_shaping_right_to_left_scripts_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of matplotlib would write them from left to right."""
    monkeypatch.delattr(ft2font, "__libraqm_version__", raising=False)
    _, can_draw = _fonts("דa")
    assert not can_draw("ד")
    assert can_draw("a")


def test_rows_without_examples_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # another test may have imported it
    confusion_png(["a", "b"], [[0, 0], [0, 0]], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 0
    assert "matplotlib.pyplot" not in sys.modules
