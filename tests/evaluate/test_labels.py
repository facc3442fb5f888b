from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acorn.errors import DamageError, InputError
from acorn.evaluate.labels import label_figures, label_scores, several_label_figures, several_label_scores

LABELS = ("ham", "spam", "news")
pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40)
sets = st.frozensets(st.sampled_from(LABELS))
set_pairs = st.lists(st.tuples(sets, sets), min_size=1, max_size=30)


def one_hot(predicted: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array([[float(label == name) for name in LABELS] for label in predicted])


def test_figures_of_a_table_counted_by_hand() -> None:
    """ham: 3 of 4 found, one spam among them; spam: 1 of 2 found, one ham among them; news: found alone."""
    true = ["ham", "ham", "ham", "ham", "spam", "spam", "news"]
    predicted = ["ham", "ham", "ham", "spam", "spam", "ham", "news"]
    figures = label_scores(true, predicted, LABELS)
    assert figures["confusion"] == [[3, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert figures["accuracy"] == 5 / 7
    assert figures["per_label"]["ham"] == {"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4, "support": 4}
    assert figures["per_label"]["spam"] == {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    assert figures["macro_f1"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert (figures["examples"], figures["labels"], figures["notes"]) == (7, list(LABELS), [])


def test_undefined_figures_are_null_and_named() -> None:
    figures = label_scores(["ham", "ham", "spam"], ["ham", "ham", "ham"], (*LABELS, "offer", "news2"))
    per_label = figures["per_label"]
    assert per_label["spam"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert per_label["news"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert figures["macro_f1"] == pytest.approx((0.8 + 0.0) / 2)
    said = " ".join(figures["notes"])
    assert 'The labels "news", "offer" and "news2" are neither among these examples nor predicted' in said
    assert 'The label "spam" is never predicted: precision is undefined, F1 is 0.' in said
    unseen = label_scores(["ham"], ["news"], LABELS)
    assert unseen["per_label"]["news"]["recall"] is None
    assert 'The label "news" is predicted, but no example has it' in " ".join(unseen["notes"])


def test_a_single_label_is_no_fault() -> None:
    figures = label_figures(["ham", "ham"], [[1.0], [1.0]], ["ham"])
    assert (figures["accuracy"], figures["macro_f1"], figures["confusion"]) == (1.0, 1.0, [[2]])


def test_the_likeliest_label_counts_and_of_equal_ones_the_first() -> None:
    figures = label_figures(["ham", "spam"], [[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], LABELS)
    assert figures["accuracy"] == 1.0
    assert figures["expected_calibration_error"] == pytest.approx(0.6)


@given(pairs)
def test_confusion_counts_every_example_once(found: list[tuple[str, str]]) -> None:
    true, predicted = zip(*found, strict=True)
    figures = label_figures(true, one_hot(predicted), LABELS)
    confusion = np.array(figures["confusion"])
    assert confusion.sum() == len(found)
    assert confusion.sum(axis=1).tolist() == [true.count(label) for label in LABELS]
    assert confusion.sum(axis=0).tolist() == [predicted.count(label) for label in LABELS]
    assert np.trace(confusion) / len(found) == figures["accuracy"]
    json.dumps(figures, allow_nan=False)


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_examples_and_labels_does_not_matter(found: list[tuple[str, str]], random: Any) -> None:
    shuffled, labels = random.sample(found, len(found)), random.sample(LABELS, len(LABELS))
    one, other = (
        label_scores(*zip(*each, strict=True), names) for each, names in ((found, LABELS), (shuffled, labels))
    )
    assert one["per_label"] == other["per_label"]
    assert one["accuracy"] == other["accuracy"]
    assert one["macro_f1"] == pytest.approx(other["macro_f1"])


@given(pairs)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(found: list[tuple[str, str]]) -> None:
    for figures in label_scores(*zip(*found, strict=True), LABELS)["per_label"].values():
        if figures["precision"] and figures["recall"]:
            precision, recall = (Fraction(figures[name]) for name in ("precision", "recall"))
            assert figures["f1"] == pytest.approx(float(2 * precision * recall / (precision + recall)))


def test_several_labels_counted_by_hand() -> None:
    true = [["ham", "news"], [], ["spam"], ["news"]]
    probabilities = [[0.9, 0.1, 0.2], [0.0, 0.5, 0.1], [0.6, 0.7, 0.1], [0.1, 0.2, 0.8]]
    figures = several_label_figures(true, probabilities, LABELS)
    assert figures["labels"] == [["ham"], [], ["ham", "spam"], ["news"]]
    assert figures["micro_f1"] == 2 * 3 / (4 + 4)
    assert (figures["micro_precision"], figures["micro_recall"]) == (3 / 4, 3 / 4)
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert figures["subset_accuracy"] == 2 / 4
    assert sum(each["predictions"] for each in figures["reliability"]) == 4 * 3


def test_several_labels_without_any_are_null() -> None:
    figures = several_label_scores([[], []], [[], []], LABELS)
    assert [figures[name] for name in ("micro_f1", "micro_precision", "micro_recall", "macro_f1")] == [None] * 4
    assert figures["subset_accuracy"] == 1.0
    assert any("micro recall is undefined, and micro F1" in note for note in figures["notes"])
    assert several_label_scores([["ham"]], [[]], LABELS)["micro_f1"] == 0.0


@given(set_pairs)
def test_several_labels_are_json_without_nan(found: list[tuple[frozenset[str], frozenset[str]]]) -> None:
    figures = several_label_scores(*zip(*found, strict=True), LABELS)
    json.dumps(figures, allow_nan=False)
    assert [frozenset(its) for its in figures["labels"]] == [predicted for _, predicted in found]


@settings(max_examples=25)
@given(pairs)
def test_one_label_is_what_scikit_learn_counts(found: list[tuple[str, str]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the extra baselines is not installed")
    true, predicted = zip(*found, strict=True)
    figures = label_scores(true, predicted, LABELS)
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert figures["macro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="macro", zero_division=0))
    assert figures["confusion"] == metrics.confusion_matrix(true, predicted, labels=LABELS).tolist()
    theirs = metrics.precision_recall_fscore_support(true, predicted, labels=LABELS, zero_division=np.nan)
    for number, ours in enumerate(figures["per_label"].values()):
        for name, column in zip(("precision", "recall", "support"), (theirs[0], theirs[1], theirs[3]), strict=True):
            value = column[number]
            assert ours[name] is None if np.isnan(value) else ours[name] == pytest.approx(value)


@settings(max_examples=25)
@given(set_pairs)
def test_several_labels_are_what_scikit_learn_counts(found: list[tuple[frozenset[str], frozenset[str]]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the extra baselines is not installed")
    true, predicted = ([[label in its for label in LABELS] for its in side] for side in zip(*found, strict=True))
    figures = several_label_scores(*zip(*found, strict=True), LABELS)
    assert figures["subset_accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    if figures["micro_f1"] is not None:
        assert figures["micro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="micro", zero_division=0))
        each = metrics.f1_score(true, predicted, average=None, zero_division=np.nan)
        assert figures["macro_f1"] == pytest.approx(np.nanmean(each))


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="0 examples"):
        label_figures([], [], LABELS)
    with pytest.raises(InputError, match='"other" is none that the model was trained on'):
        label_figures(["other"], [[1.0, 0.0, 0.0]], LABELS)
    with pytest.raises(InputError, match='"other"'):
        several_label_figures([["ham", "other"]], [[1.0, 0.0, 0.0]], LABELS)
    with pytest.raises(DamageError, match="example 2"):
        label_figures(["ham", "ham"], [[1.0, 0.0, 0.0], [np.nan, 0.0, 1.0]], LABELS)
    for probabilities in ([[1.0, 0.0]], [[0.2, 0.2, 0.2]], [[2.0, -1.0, 0.0]]):
        with pytest.raises(ValueError, match="probabilities"):
            label_figures(["ham"], probabilities, LABELS)
