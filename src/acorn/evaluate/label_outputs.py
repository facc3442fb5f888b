"""The outputs of a label head for examples, their probabilities, and their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acorn.data.example_batches import grouped, padded
from acorn.data.examples import TokenExample
from acorn.model.gpt import GPT
from acorn.progress import QUIET, Progress
from acorn.runtime.device import Runtime

ROWS_AT_ONCE = 8
"""Number of examples of full context length that are computed together; more if they are shorter."""


def label_outputs(
    model: GPT, examples: Sequence[TokenExample], runtime: Runtime, pad_id: int, progress: Progress = QUIET
) -> NDArray[np.float64]:
    """The outputs of the label head at the trained positions of all examples (N, L), in the order of `examples`.

    Args:
        examples: each has one trained position, or, for a tagger, one for each word.
        pad_id: any id of the vocabulary; padding does not change the outputs.
        progress: gets the number of finished examples; an exception from it ends the work.
    """
    spec = model.head_spec
    assert spec is not None
    ends = np.cumsum([len(example.rows) for example in examples])
    result = np.empty((ends[-1], spec.outputs))
    context, done = model.config.block_size, 0
    was_training = model.training
    model.eval()
    try:
        for numbers, length in grouped([len(one.ids) for one in examples], context, ROWS_AT_ONCE * context):
            ids, _, _ = padded([examples[number] for number in numbers], length, pad_id)
            rows = [examples[number].rows + row * length for row, number in enumerate(numbers)]
            places = torch.from_numpy(np.concatenate(rows))
            with torch.no_grad(), runtime.autocast():
                outputs = cast(Tensor, model(ids.to(model.device), rows=places.to(model.device)))
            its = [np.arange(ends[number] - len(examples[number].rows), ends[number]) for number in numbers]
            result[np.concatenate(its)] = outputs.double().cpu().numpy()
            done += len(numbers)
            progress.at("Scoring", done, len(examples), "examples")
    finally:
        model.train(was_training)
    progress.end("Scoring")
    return result


def probabilities_of(outputs: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """Probabilities (N, L) of outputs: for heads of kind `class` and `tag` each row sums to 1, for `labels` they are
    independent."""
    tensor = torch.from_numpy(outputs)
    return (tensor.softmax(-1) if kind in ("class", "tag") else tensor.sigmoid()).numpy()


def label_loss(
    outputs: NDArray[np.float64], examples: Sequence[TokenExample], kind: str, class_weights: Sequence[float] = ()
) -> tuple[float, float]:
    """The summed loss of outputs (N, L), and the number of scored targets or the sum of their weights.

    It is the loss of `model.label_head`, in double precision.
    """
    values = np.concatenate([example.values for example in examples])
    if kind in ("class", "tag"):
        losses = np.logaddexp.reduce(outputs, axis=1) - outputs[np.arange(len(values)), values]
        weights = np.array(class_weights)[values] if len(class_weights) else np.ones(len(values))
        return float(losses @ weights), float(weights.sum())
    if kind == "labels":
        return float((np.logaddexp(0, outputs) - outputs * values).sum()), values.size
    return float(((outputs - values) ** 2).sum()), values.size
