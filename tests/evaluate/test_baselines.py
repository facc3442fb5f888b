from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from acorn.errors import InputError
from acorn.evaluate.baselines import (
    PENALTIES,
    WORD,
    Labeled,
    _penalty,
    _rows,
    label_baselines,
    several_label_baselines,
    value_baselines,
)

TRAIN = Labeled(["win cash now", "cash prize", "lunch at noon", "see you at lunch", "meeting notes"], list("sshhh"))
SCORED = Labeled(["cash now", "lunch meeting", "prize"], list("shs"))


@pytest.fixture
def sklearn() -> None:
    pytest.importorskip("sklearn", reason="the extra baselines is not installed")


def without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)


def test_the_majority_of_training_is_scored_on_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    without_sklearn(monkeypatch)
    figures = label_baselines(TRAIN, SCORED, ["s", "h"])
    assert figures["majority"] == {"accuracy": 1 / 3, "macro_f1": pytest.approx(0.25)}
    several = several_label_baselines(
        Labeled(["a", "b", "c"], [["x"], ["x", "y"], []]), Labeled(["d", "e"], [["x"], ["y"]]), ["x", "y"]
    )
    assert several["majority"]["micro_f1"] == 0.5
    values = value_baselines(Labeled(["a", "b"], [1.0, 3.0]), Labeled(["c", "d"], [2.0, 5.0]))
    assert values["mean"]["mean_absolute_error"] == 1.5
    assert values["mean"]["pearson"] is None


def test_without_scikit_learn_the_rest_is_given_and_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without_sklearn(monkeypatch)
    for figures, name in (
        (label_baselines(TRAIN, SCORED, ["s", "h"]), "tfidf_logistic"),
        (several_label_baselines(Labeled(["a"], [["x"]]), Labeled(["b"], [["x"]]), ["x"]), "tfidf_logistic"),
        (value_baselines(Labeled(["a"], [1.0]), Labeled(["b"], [1.0])), "tfidf_ridge"),
    ):
        assert figures[name] is None
        assert figures["notes"] == [
            "TF-IDF is not given: scikit-learn is not installed: pip install -c constraints.txt '.[baselines]'."
        ]


@pytest.mark.usefixtures("sklearn")
def test_words_tell_the_labels_apart() -> None:
    figures = label_baselines(TRAIN, SCORED, ["s", "h"])
    assert figures["tfidf_logistic"] == {"accuracy": 1.0, "macro_f1": 1.0}
    assert figures["notes"] == []
    assert figures == label_baselines(TRAIN, SCORED, ["s", "h"])


@pytest.mark.usefixtures("sklearn")
def test_the_penalty_is_that_of_a_grid_search_on_the_training_side() -> None:
    """One label is rare and its word stands among others, so that a strong penalty predicts the frequent one always."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    labels = ["ham"] * 40 + ["spam"] * 10
    texts = [f"{'cash' if label == 'spam' else 'lunch'} at n{n} m{n}" for n, label in enumerate(labels)]
    found = _rows(texts, texts)[0]
    assert found
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": list(PENALTIES)}, cv=StratifiedKFold(5))
    scores = search.fit(found[0], labels).cv_results_["mean_test_score"]
    best = [penalty for penalty, score in zip(PENALTIES, scores, strict=True) if np.isclose(score, max(scores))]
    assert 0 < len(best) < len(PENALTIES)
    assert _penalty(found[0], np.asarray(labels, dtype=object), None) == max(best)
    alone = np.asarray([f"label {n}" for n in range(50)], dtype=object)
    assert _penalty(found[0], alone, None) in PENALTIES  # no label has two texts to validate with


@pytest.mark.usefixtures("sklearn")
def test_class_weights_favor_the_rare_label() -> None:
    """Texts of both labels that share every word: only the weights decide."""
    train = Labeled(["same words"] * 20, ["common"] * 15 + ["rare"] * 5)
    scored = Labeled(["same words"] * 2, ["common", "rare"])
    plain, balanced = (
        label_baselines(train, scored, ["common", "rare"], class_weights=weights) for weights in ("none", "balanced")
    )
    assert plain["tfidf_logistic"] == plain["majority"]
    assert balanced["tfidf_logistic"]["accuracy"] == 0.5
    with pytest.raises(ValueError, match="none or balanced"):
        label_baselines(train, scored, ["common", "rare"], class_weights="other")


@pytest.mark.usefixtures("sklearn")
def test_the_labels_of_training_are_all_that_is_known() -> None:
    """A single label in training, one that is never true and one that always is: nothing to tell apart."""
    one = label_baselines(Labeled(["a b", "c d"], ["x", "x"]), Labeled(["a"], ["y"]), ["x", "y"])
    assert one["tfidf_logistic"] == one["majority"]
    several = several_label_baselines(
        Labeled(["good food", "bad food"], [["all", "good"], ["all"]]),
        Labeled(["good", "bad"], [["all", "good"], ["all"]]),
        ["all", "good", "never"],
    )
    assert several["tfidf_logistic"] == {"micro_f1": 1.0, "macro_f1": 1.0, "subset_accuracy": 1.0}


@pytest.mark.usefixtures("sklearn")
def test_values_follow_words() -> None:
    words = ["bad", "fair", "good"] * 20
    train = Labeled(
        [f"it was {word}" for word in words], [float({"bad": 1, "fair": 2, "good": 3}[word]) for word in words]
    )
    figures = value_baselines(train, Labeled(["good", "fair", "bad"], [3.0, 2.0, 1.0]))
    assert figures["tfidf_ridge"]["spearman"] == pytest.approx(1.0)
    assert figures["mean"]["mean_absolute_error"] == pytest.approx(2 / 3)
    assert figures["tfidf_ridge"]["mean_absolute_error"] < 1 / 2


@pytest.mark.usefixtures("sklearn")
def test_texts_without_words_leave_the_baseline_out() -> None:
    figures = label_baselines(Labeled(["...", ""], ["x", "y"]), Labeled(["a"], ["x"]), ["x", "y"])
    assert figures["tfidf_logistic"] is None
    assert figures["notes"] == ["TF-IDF is not given: no training text has a word."]


@pytest.mark.usefixtures("sklearn")
def test_characters_are_the_words_of_scripts_without_spaces() -> None:
    train = Labeled(["很好吃", "好吃的", "不好看", "难看的"], ["food", "food", "look", "look"])
    figures = label_baselines(train, Labeled(["真好吃", "真难看"], ["food", "look"]), ["food", "look"])
    assert figures["tfidf_logistic"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't buy 3 x_y!", ["Don", "t", "buy", "3", "x_y"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("می\u200cخواهم، برو", ["می\u200cخواهم", "برو"]),
        ("我爱 “AI”", ["我", "爱", "AI"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_words_of_scripts(text: str, words: list[str]) -> None:
    assert re.findall(WORD, text) == words


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="0 examples"):
        label_baselines(TRAIN, Labeled([], []), ["s", "h"])
    with pytest.raises(InputError, match='"h"'):
        label_baselines(TRAIN, SCORED, ["s"])
    with pytest.raises(InputError, match="not a finite"):
        value_baselines(Labeled(["a"], [np.inf]), Labeled(["a"], [1.0]))
    with pytest.raises(ValueError, match="do not match"):
        label_baselines(Labeled(["a"], []), SCORED, ["s", "h"])
