from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.report.curves import Series
from acorn.report.svg import Line, chart, ticks

SIZE = (470, 230)


def drawn(lines: list[Line], x: str = "tokens", y_range: tuple[float, float] = (0.0, 10.0)) -> ElementTree.Element:
    return ElementTree.fromstring(chart(lines, x, y_range, SIZE, "a summary"))


def texts(picture: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in picture.iter("text")]


def test_points_can_be_read_back_with_the_scale_in_the_chart() -> None:
    series = Series(np.array([0.0, 250.0, 1000.0]), np.array([10.0, 2.5, 4.0]))
    picture = drawn([Line("training", series, 0)], y_range=(2.0, 12.0))
    left, top, width, height = map(float, picture.attrib["data-plot"].split())
    x_high, y_low, y_high = (float(picture.attrib[name]) for name in ("data-x-high", "data-y-low", "data-y-high"))
    (polyline,) = picture.iter("polyline")
    pixels = np.array([[float(part) for part in pair.split(",")] for pair in polyline.attrib["points"].split()])
    np.testing.assert_allclose(pixels[:, 0] / width * x_high, series.x, atol=0.2)
    np.testing.assert_allclose(y_high - pixels[:, 1] / height * (y_high - y_low), series.y, atol=0.002)
    assert (left + width, top + height) < SIZE


def test_only_named_lines_have_readable_values_and_names_are_escaped() -> None:
    series = Series(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    picture = drawn([Line("raw", series, 0, "raw"), Line('<"run">\x1b', series, 1)])
    assert [line.attrib.get("data-name") for line in picture.iter("polyline")] == [None, '<"run">\\x1b']


def test_markers_are_only_on_points_inside_the_plot() -> None:
    series = Series(np.array([0.0, 1.0, 2.0]), np.array([5.0, 50.0, 10.0]))
    marks = list(drawn([Line("validation", series, 1, "points")]).iter("circle"))
    assert len(marks) == 2
    assert float(marks[1].attrib["cy"]) == 10.0


def test_a_line_with_many_points_has_no_markers() -> None:
    many = Series(np.arange(5000.0), np.ones(5000))
    picture = drawn([Line("validation", many, 1, "points")])
    assert list(picture.iter("circle")) == []
    (polyline,) = picture.iter("polyline")
    assert len(polyline.attrib["points"].split()) < 1000


@pytest.mark.parametrize(
    ("seconds", "title"),
    [(90.0, "seconds"), (600.0, "minutes"), (20_000.0, "hours"), (900_000.0, "days")],
)
def test_the_time_axis_has_a_suitable_unit(seconds: float, title: str) -> None:
    series = Series(np.array([0.0, seconds]), np.array([1.0, 2.0]))
    assert texts(drawn([Line("training", series, 0)], x="seconds"))[-1] == f"training time in {title}"


@pytest.mark.parametrize(
    ("high", "labels"),
    [
        (5e-4, ["0", "2e-4", "4e-4"]),
        (0.0022, ["0", "0.001", "0.002"]),
        (0.9, ["0", "0.2"]),
        (2.5e4, ["0", "10K", "20K"]),
    ],
)
def test_values_have_as_few_digits_as_needed_to_differ(high: float, labels: list[str]) -> None:
    assert texts(drawn([], y_range=(0.0, high)))[: len(labels)] == labels


def test_a_chart_without_data_is_no_error() -> None:
    assert list(drawn([Line("none", Series(np.array([]), np.array([])), 0)]).iter("polyline")) == []


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6), about=st.integers(2, 12))
def test_ticks_are_round_numbers_evenly_spaced_and_inside_the_range(low: float, span: float, about: int) -> None:
    high = low + span
    marks = ticks(low, high, about)
    step = marks[1] - marks[0] if len(marks) > 1 else span
    assert all(low - 1e-6 * span <= mark <= high + 1e-6 * span for mark in marks)
    assert about / 2.5 <= span / step <= about * 2.5 or len(marks) <= 1
    if len(marks) > 1:
        np.testing.assert_allclose(np.diff(marks), step, rtol=1e-3)
        digits = f"{step:.0e}"
        assert digits[0] in "125"


def test_ticks_of_an_empty_range() -> None:
    assert ticks(3.0, 3.0, 5) == [3.0]
