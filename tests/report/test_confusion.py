from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acorn.report.confusion import MAX_LABELS, matrix_of, short_names, width_of


def test_shares_are_of_the_row_and_a_row_without_examples_has_none() -> None:
    matrix = matrix_of(["a", "b", "c"], [[3, 1, 0], [0, 0, 0], [5, 0, 5]])
    assert matrix.shares.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    assert matrix.support.tolist() == [4, 0, 10]
    assert matrix.merged == 0


def test_of_many_labels_those_with_the_fewest_mistakes_are_merged() -> None:
    generator = np.random.default_rng(0)
    size = 70
    counts = np.diag(np.full(size, 100))
    worst = [5, 20, 69]
    for at in worst:
        counts[at, (at + 1) % size] = 30
    counts += generator.integers(0, 2, (size, size))
    matrix = matrix_of([f"label {at}" for at in range(size)], counts.tolist())
    assert len(matrix.labels) == MAX_LABELS
    assert matrix.counts.shape == (MAX_LABELS, MAX_LABELS)
    assert matrix.counts.sum() == counts.sum()
    assert matrix.merged == size - (MAX_LABELS - 1)
    assert matrix.labels[-1] == "21 other labels"
    assert {f"label {at}" for at in worst} <= set(matrix.labels)
    kept = [int(name.split()[1]) for name in matrix.labels[:-1]]
    assert kept == sorted(kept)
    assert matrix.counts[:-1, :-1].tolist() == counts[np.ix_(kept, kept)].tolist()


@pytest.mark.parametrize("confusion", [[], [[1]], [[1, 2]], [[1, 2], [3, 4], [5, 6]]])
def test_a_matrix_that_does_not_fit_its_labels_is_refused(confusion: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="confusion"):
        matrix_of(["a", "b"], confusion)


def test_the_middle_of_long_names_is_left_out() -> None:
    names = ["a category of long names, ending A", "a category of long names, ending B", "short"]
    assert short_names(names, 16) == ["a catego…nding A", "a catego…nding B", "short"]


def test_names_that_would_look_alike_are_told_apart() -> None:
    names = [f"intent_number_{number}_of_the_bank" for number in range(3)]
    assert short_names(names, 16) == ["…0_of_the_bank", "…1_of_the_bank", "…2_of_the_bank"]
    assert short_names(["a  b", "a b", "c"], 16) == ["1: a b", "2: a b", "c"]


def test_names_stand_on_one_line_and_are_never_empty() -> None:
    assert short_names(["", "two\nlines\tand \x07", "x" * 3], 30) == ["(empty)", "two lines and \\x07", "xxx"]


def test_characters_without_a_glyph_are_escaped() -> None:
    assert short_names(["垃圾 x", "ok"], 20, str.isascii) == ["\\u5783\\u573e x", "ok"]
    assert short_names(["垃圾邮件"], 18, str.isascii) == ["\\u5783…\\u4ef6"]
    assert short_names(["垃圾邮件"], 5) == ["垃…件"]
    assert short_names(["\U0001f389"], 20, str.isascii) == ["\\U0001f389"]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=12, unique=True), st.integers(14, 30))
def test_names_differ_and_fit(labels: list[str], longest: int) -> None:
    names = short_names(labels, longest, str.isascii)
    assert len(set(names)) == len(labels)
    assert all(name.isascii() or "…" in name for name in names)
    assert max(map(width_of, names)) <= longest + len("12: ")
    assert all(name and "\n" not in name for name in names)
