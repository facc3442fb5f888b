"""Baselines of finetuned models: a prediction that ignores the text, and a linear model of its words.

The linear model is TF-IDF with logistic regression, or ridge regression for values, by scikit-learn (extra
`baselines`). Nothing of it is tuned on the examples that it is scored on:

- words and pairs of neighboring words, in lower case, including single letters; in scripts without spaces (Chinese,
  Japanese, Thai and others) each character is a word. The 100,000 most frequent ones of the training side.
- 1 + log(count) instead of counts, smoothed inverse document frequency, rows normalized to length 1.
- logistic regression: L2, class weights as the run's; several labels: one regression for each. Of C = 1, 10 and 100
  it takes the one that predicts most labels right in a cross-validation within the training side.
- ridge regression: alpha = 1.

It reads whole texts, even if they are longer than the network's context. Nothing is random; the last bits of a
probability may differ between machines.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acorn.errors import install_command
from acorn.evaluate.labels import label_scores, several_label_scores
from acorn.evaluate.predictions import label_ids, label_table, nothing_to_score
from acorn.evaluate.regression import check_labels, value_figures

PENALTIES = (1.0, 10.0, 100.0)
"""Values of C, the inverse strength of logistic regression's L2 penalty, that are tried."""
FOLDS = 5
MOST_VALIDATED = 10_000
"""Texts of the cross-validation. Of a longer training side they are taken at equal distances."""
ALPHA = 1.0
MAX_WORDS = 100_000
MAX_ITERATIONS = 1000

_NO_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese characters."""
_BETWEEN = (
    r"\s!-/:-@\[-^`{-~\u00a1-\u00bf\u060c\u061b\u061f\u06d4\u0964\u0965\u2000-\u200b\u200e-\u206f\u3000-\u303f"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
"""Characters between words: white space and punctuation. Not `\\W`, which counts the vowel signs of Indic scripts and
the joiners inside Persian words."""
WORD = f"[{_NO_SPACES}]|[^{_BETWEEN}{_NO_SPACES}]+"
"""The regular expression of a word."""


class Labeled(NamedTuple):
    """The texts of one side, each with a label, a collection of labels, or a value."""

    texts: Sequence[str]
    labels: Sequence[Any]


def label_baselines(
    train: Labeled, scored: Labeled, labels: Sequence[str], *, class_weights: str = "none"
) -> dict[str, Any]:
    """Figures of both baselines for one label per example.

    Args:
        train: the training side, from which the baselines are made.
        scored: the side that they are scored on.
        labels: the names of all labels.
        class_weights: "none" or "balanced", as `finetune.class_weights`.

    Returns:
        `majority` (the most frequent label of training for every example, of equal ones the first) and
        `tfidf_logistic`, each with `accuracy` and `macro_f1`, the latter None where the reason is in `notes`.

    Raises:
        InputError: a side has no example, or a label is none of `labels`.
    """
    _check_sides(train, scored)
    label_ids(train.labels, labels)
    counts = Counter(train.labels)
    majority = max(labels, key=lambda label: counts[label])
    predicted, notes = _predicted(train, scored, [train.labels], class_weights)
    names = ("accuracy", "macro_f1")
    of_majority = label_scores(scored.labels, [majority] * len(scored.labels), labels)
    figures: dict[str, Any] = {"majority": _chosen(of_majority, names), "tfidf_logistic": None, "notes": notes}
    if predicted is not None:
        figures["tfidf_logistic"] = _chosen(label_scores(scored.labels, predicted[0], labels), names)
    return figures


def several_label_baselines(
    train: Labeled, scored: Labeled, labels: Sequence[str], *, class_weights: str = "none"
) -> dict[str, Any]:
    """Figures of both baselines for several labels per example.

    Returns:
        `majority` (the labels that more than half of the training examples have, for every example) and
        `tfidf_logistic` (one regression for each label), each with `micro_f1`, `macro_f1` and `subset_accuracy`; the
        latter None where the reason is in `notes`.

    Raises:
        InputError: a side has no example, or a label is none of `labels`.
    """
    _check_sides(train, scored)
    label_table(train.labels, labels)
    counts = Counter(label for its in train.labels for label in set(its))
    majority = [label for label in labels if 2 * counts[label] > len(train.labels)]
    answers = [["yes" if label in its else "no" for its in train.labels] for label in labels]
    predicted, notes = _predicted(train, scored, answers, class_weights)
    names = ("micro_f1", "macro_f1", "subset_accuracy")
    of_majority = several_label_scores(scored.labels, [majority] * len(scored.labels), labels)
    figures: dict[str, Any] = {"majority": _chosen(of_majority, names), "tfidf_logistic": None, "notes": notes}
    if predicted is not None:
        sets = [
            [label for label, said in zip(labels, row, strict=True) if said == "yes"]
            for row in zip(*predicted, strict=True)
        ]
        figures["tfidf_logistic"] = _chosen(several_label_scores(scored.labels, sets, labels), names)
    return figures


def value_baselines(train: Labeled, scored: Labeled) -> dict[str, Any]:
    """Figures of both baselines for values.

    Returns:
        `mean` (the mean of training for every example) and `tfidf_ridge`, each with `mean_absolute_error`, `rmse`,
        `pearson` and `spearman`; the latter None where the reason is in `notes`.

    Raises:
        InputError: a side has no example, or a label is not finite.
    """
    _check_sides(train, scored)
    values = np.asarray(train.labels, dtype=np.float64)
    check_labels(values)
    names = ("mean_absolute_error", "rmse", "pearson", "spearman")
    of_mean = value_figures(scored.labels, [float(values.mean())] * len(scored.labels))
    figures: dict[str, Any] = {"mean": _chosen(of_mean, names), "tfidf_ridge": None, "notes": []}
    rows, reason = _rows(train.texts, scored.texts)
    if rows is None:
        return figures | {"notes": [reason]}
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=ALPHA, solver="sparse_cg", tol=1e-6, max_iter=MAX_ITERATIONS).fit(rows[0], values)
    figures["tfidf_ridge"] = _chosen(value_figures(scored.labels, model.predict(rows[1]).tolist()), names)
    return figures


def _check_sides(train: Labeled, scored: Labeled) -> None:
    for side in (train, scored):
        if len(side.texts) != len(side.labels):
            raise ValueError(f"{len(side.texts)} texts and {len(side.labels)} labels do not match")
        if not len(side.texts):
            raise nothing_to_score()


def _predicted(
    train: Labeled, scored: Labeled, targets: Sequence[Sequence[str]], class_weights: str
) -> tuple[list[list[str]] | None, list[str]]:
    """The predictions of logistic regression for `scored.texts`, for each of several targets; or None, and the reason.

    Args:
        targets: rows of labels of the training side, one for each regression.
    """
    if class_weights not in ("none", "balanced"):
        raise ValueError(f"class_weights is none or balanced, not {class_weights!r}")
    rows, reason = _rows(train.texts, scored.texts)
    if rows is None:
        return None, [reason]
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # its vectors are too small for more threads, which wait in a loop for each other
        predicted, unfinished = _of_regressions(rows, targets, len(scored.texts), class_weights)
    note = f"Logistic regression did not converge in {MAX_ITERATIONS:,} iterations; its figures are of where it was."
    return predicted, [note] if unfinished else []


def _of_regressions(
    rows: tuple[Any, Any], targets: Sequence[Sequence[str]], scored: int, class_weights: str
) -> tuple[list[list[str]], bool]:
    """As `_predicted`, from the rows of both sides; and whether a regression did not converge.

    Args:
        scored: the number of texts to predict on.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    predicted, unfinished = [], False
    for target in targets:
        if len(set(target)) == 1:  # only one class: scikit-learn refuses it
            predicted.append([target[0]] * scored)
            continue
        weights = None if class_weights == "none" else class_weights
        answers = np.asarray(target, dtype=object)
        model = LogisticRegression(C=_penalty(rows[0], answers, weights), class_weight=weights, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(rows[0], answers)
        unfinished |= any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        predicted.append([str(label) for label in model.predict(rows[1])])
    return predicted, unfinished


def _penalty(rows: Any, answers: NDArray[Any], weights: str | None) -> float:
    """The C with which models of all folds but one predict most of that one right; of equal ones the largest.

    Args:
        rows: sparse matrix (texts, words).
        answers: the label of each text.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    step = -(-len(answers) // MOST_VALIDATED)
    rows, answers = rows[::step], answers[::step]
    folds = min(FOLDS, max(Counter(answers).values()))
    if folds < 2:  # no label has two texts
        return PENALTIES[1]
    right = dict.fromkeys(PENALTIES, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels with fewer texts than folds; convergence, which the final fit reports
        for fitted, held_out in StratifiedKFold(folds).split(rows, answers):
            if len(set(answers[fitted])) == 1:
                continue
            for penalty in PENALTIES:
                model = LogisticRegression(C=penalty, class_weight=weights, max_iter=MAX_ITERATIONS)
                said = model.fit(rows[fitted], answers[fitted]).predict(rows[held_out])
                right[penalty] += int((said == answers[held_out]).sum())
    return max(PENALTIES, key=lambda penalty: (right[penalty], penalty))


def _rows(train: Sequence[str], scored: Sequence[str]) -> tuple[tuple[Any, Any] | None, str]:
    """TF-IDF of both sides as sparse matrices (texts, words), with the words of the first; or None, and the reason."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        broken = "" if (error.name or "").partition(".")[0] == "sklearn" else f" ({error})"
        return None, f"TF-IDF is not given: scikit-learn is not installed{broken}: {install_command('baselines')}."
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), token_pattern=WORD, sublinear_tf=True, max_features=MAX_WORDS, dtype=np.float64
    )
    try:
        ours = vectorizer.fit_transform(train)
    except ValueError:
        if any(vectorizer.build_analyzer()(text) for text in train):
            raise
        return None, "TF-IDF is not given: no training text has a word."
    return (ours, vectorizer.transform(scored)), ""


def _chosen(figures: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: figures[name] for name in names}
