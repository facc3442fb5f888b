from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from acorn.report.confusion_svg import FULL, LEAST, confusion_figure


def drawn(labels: list[str], confusion: list[list[int]]) -> ElementTree.Element:
    return ElementTree.fromstring(confusion_figure(labels, confusion))


def test_each_cell_says_its_count_and_its_labels() -> None:
    figure = drawn(["ham", "spam", "none"], [[9, 1, 0], [0, 4, 0], [0, 0, 0]])
    cells = {group.findtext("title"): group for group in figure.iter("g")}
    assert set(cells) == {
        "true ham, predicted ham: 9 of 10 (90 %)",
        "true ham, predicted spam: 1 of 10 (10 %)",
        "true spam, predicted spam: 4 of 4 (100 %)",
    }
    shades = {group.findtext("text"): group.find("rect") for group in cells.values()}
    assert {text: (rect.attrib["class"], float(rect.attrib["fill-opacity"])) for text, rect in shades.items()} == {
        "9": ("right", pytest.approx(0.9 * FULL)),
        "1": ("wrong", pytest.approx(0.1 * FULL)),
        "4": ("right", FULL),
    }


def test_a_single_mistake_among_many_is_still_seen() -> None:
    figure = drawn(["a", "b"], [[99_999, 1], [0, 1]])
    opacities = [float(rect.attrib["fill-opacity"]) for rect in figure.iter("rect") if rect.attrib["class"] == "wrong"]
    assert opacities == [LEAST]
    assert next(group.findtext("text") for group in figure.iter("g")) == "100K"


@pytest.mark.parametrize("size", [2, 10, 50])
def test_everything_stands_inside_the_picture(size: int) -> None:
    figure = drawn([f"a rather long label {number}" for number in range(size)], np.full((size, size), 8888).tolist())
    (picture,) = figure.iter("svg")
    width, height = map(float, picture.attrib["viewBox"].split()[2:])
    for rect in picture.iter("rect"):
        x, y, wide, high = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + wide <= width + 0.2
        assert y + high <= height + 0.2
    for text in picture.iter("text"):
        assert 0 <= float(text.attrib.get("x", "0")) <= width
        assert 0 <= float(text.attrib.get("y", "0")) <= height


def test_labels_are_escaped_and_merged_ones_are_said() -> None:
    figure = confusion_figure(['<b onclick="x">', "&\x1b"], [[1, 1], [1, 1]])
    assert "<b " not in figure.replace("<b>Confusion", "")
    assert "\x1b" not in figure
    assert "true &lt;b onclick=&quot;x&quot;&gt;, predicted &amp;\\x1b" in figure
    many = confusion_figure([str(number) for number in range(60)], np.eye(60, dtype=int).tolist())
    assert "the 11 labels with the fewest mistakes share the last row and column" in many
    assert len(re.findall("<g>", many)) == 50
