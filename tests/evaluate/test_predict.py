"""Predictions of a label head do not depend on the texts beside them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from small_models import LINES, classifier_for

from acorn.errors import DamageError, InputError, UsageError
from acorn.evaluate.predict import check_fits, predict, predicted_labels
from acorn.model.label_head import HeadSpec
from acorn.runtime.choose import runtime_for_inference
from acorn.tokenizer.label_text import LabelText
from acorn.tokenizer.training import train

LABELS = ("x", "y", "z")
RUNTIME = runtime_for_inference("cpu", "fp32")


@pytest.fixture(scope="module")
def text() -> LabelText:
    return LabelText(train(lambda: iter(LINES), "bpe", 300))


def classifier(text: LabelText, kind: str, outputs: int = 3):
    return classifier_for(text.tokenizer, HeadSpec(kind, outputs), n_layer=1, block_size=48)


@pytest.mark.parametrize("kind", ["class", "labels"])
def test_probabilities_do_not_depend_on_the_other_texts(text: LabelText, kind: str) -> None:
    """Alone, and among others of all lengths in any order; both as the network computes them unpadded."""
    draw, model = random.Random(0), classifier(text, kind)
    texts = [" ".join(draw.choices(LINES[0].split(), k=draw.randrange(1, 30))) for _ in range(40)]
    together = predict(model, text, LABELS, texts, RUNTIME)
    assert [one.text for one in together] == texts
    for one in draw.sample(together, 8):
        (alone,) = predict(model, text, LABELS, [one.text], RUNTIME)
        assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)
        with torch.no_grad():
            outputs = model(torch.tensor(text.encode(one.text))[:, :48])[0, -1]
        wanted = outputs.softmax(-1) if kind == "class" else outputs.sigmoid()
        assert list(one.probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-5)
        assert one.cut == (len(text.encode(one.text)[0]) > 48)
    assert any(one.cut for one in together)
    assert not all(one.cut for one in together)


def test_of_equal_probabilities_the_first_label_counts() -> None:
    table = np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]])
    assert predicted_labels(table, LABELS, "class") == ["x", "z"]
    assert predicted_labels(table, LABELS, "labels") == [[], ["z"]]


def test_no_texts_give_no_predictions(text: LabelText) -> None:
    assert predict(classifier(text, "class"), text, LABELS, [], RUNTIME) == []


def test_outputs_that_cannot_be_used(text: LabelText) -> None:
    model = classifier(text, "class")
    with torch.no_grad():
        model.score.weight[0, 0] = torch.nan
    with pytest.raises(DamageError, match="not finite"):
        predict(model, text, LABELS, ["a"], RUNTIME)
    with pytest.raises(UsageError, match="3 values"):
        predict(classifier(text, "value"), text, (), ["a"], RUNTIME)


def test_a_long_text_is_named(text: LabelText) -> None:
    check_fits(text, ["a", "b"], ["here", "there"], 8)
    with pytest.raises(InputError, match="more than the context of 8") as caught:
        check_fits(text, ["a", "b " * 50], ["here", "there"], 8)
    assert caught.value.where == "there"
