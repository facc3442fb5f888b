"""Figures and predictions of a tagger on one side of examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acorn.evaluate.entities import tag_baselines, tag_figures
from acorn.evaluate.label_outputs import probabilities_of
from acorn.text.examples import Example, Tagged
from acorn.train.examples import tags_of
from acorn.train.task import FinetuningTask


def scored_tags(
    task: FinetuningTask, outputs: NDArray[np.float64], scored: Sequence[Example], training: Sequence[Example]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The figures, beside those of the baseline, and what the model said of each sentence.

    Args:
        outputs: of the label head at all words of `scored` (N, L), finite.
        training: the sentences that the baseline is made from.
    """
    sentences = _tagged(scored)
    predicted = tags_of(sentences, outputs, task.labels)
    figures = tag_figures([sentence.tags for sentence in sentences], predicted)
    figures |= {"labels": list(task.labels), "baselines": tag_baselines(_tagged(training), sentences)}
    sure = iter(probabilities_of(outputs, "tag").max(axis=1).tolist())
    return figures, [
        {
            "tokens": list(sentence.tokens),
            "tags": list(sentence.tags),
            "predicted": its,
            "probabilities": [next(sure) for _ in its],
        }
        for sentence, its in zip(sentences, predicted, strict=True)
    ]


def _tagged(examples: Sequence[Example]) -> list[Tagged]:
    return [example for example in examples if isinstance(example, Tagged)]
