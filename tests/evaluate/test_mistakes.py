from __future__ import annotations

import numpy as np

from acorn.evaluate.mistakes import SHOWN, confident_mistakes, confident_several_mistakes

LABELS = ("a", "b")


def test_the_surest_mistakes_come_first_and_equal_ones_in_order() -> None:
    probabilities = [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.99, 0.01]]
    found = confident_mistakes(["v", "w", "x", "y", "z"], ["b", "b", "a", "b", "a"], probabilities, LABELS)
    assert [mistake["text"] for mistake in found] == ["w", "y", "x", "v"]
    assert found[0] == {
        "example": 1,
        "text": "w",
        "true": "b",
        "predicted": "a",
        "probability": 0.9,
        "probability_of_true": 0.1,
    }


def test_no_more_than_twenty_and_none_without_mistakes() -> None:
    many = np.tile([0.7, 0.3], (50, 1))
    assert SHOWN == 20
    assert len(confident_mistakes(["t"] * 50, ["b"] * 50, many, LABELS)) == SHOWN
    assert confident_mistakes(["t"] * 50, ["a"] * 50, many, LABELS) == []
    assert confident_several_mistakes(["t"] * 50, [["a"]] * 50, many, LABELS) == []


def test_of_several_labels_the_decision_that_was_surest_is_named() -> None:
    probabilities = [[0.9, 0.6], [0.05, 0.7], [0.4, 0.2]]
    found = confident_several_mistakes(["x", "y", "z"], [[], ["a", "b"], ["a"]], probabilities, LABELS)
    assert [(each["text"], each["label"], each["probability"]) for each in found] == [
        ("y", "a", 0.05),
        ("x", "a", 0.9),
        ("z", "a", 0.4),
    ]
    assert (found[1]["true"], found[1]["predicted"]) == ([], ["a", "b"])
